"""
Runs migrations: one process at a time, never waiting long for a lock.

A migration that can't have its lock at once gives up rather than queue every other query behind it.
"""

import time

from alembic import context
from sqlalchemy import create_engine, pool, text

from app import chores
from app.billing import tables as billing
from app.callbacks import tables as callbacks
from app.db import Base
from app.files import tables as files
from app.incidents import tables as incidents
from app.jobs import tables as jobs
from app.media import tables as media
from app.settings import SettingsError
from app.tenants import tables as tenants

LOCK_TIMEOUT = "4s"
STATEMENT_TIMEOUT = "60s"
ONE_AT_A_TIME = 0x63616C6C  # "call"

TABLES = (
    billing,
    callbacks,
    chores,
    files,
    incidents,
    jobs,
    media,
    tenants,
)  # imported, so that they are in the metadata


def run_online() -> None:
    url = context.config.attributes["url"]
    engine = create_engine(
        url, poolclass=pool.NullPool, connect_args={"client_encoding": "utf8"}
    )  # closes with its connection
    with engine.connect() as connection:
        encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
        if encoding != "UTF8":
            raise SettingsError(f"DATABASE_URL: that database keeps text as {encoding}; make one with ENCODING 'UTF8'")
        connection.execute(text(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'"))
        # Waiting for another migrating process is fine; waiting for a table's lock isn't. Who waited inside one
        # statement would be waited for in turn by an index that is built concurrently: so ask again instead.
        while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": ONE_AT_A_TIME}):
            connection.commit()
            time.sleep(0.1)
        connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.commit()
        try:
            context.configure(connection=connection, target_metadata=Base.metadata, transaction_per_migration=True)
            with context.begin_transaction():
                context.run_migrations()
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": ONE_AT_A_TIME})
            connection.commit()


def run_offline() -> None:
    context.configure(
        dialect_name="postgresql",
        target_metadata=Base.metadata,
        literal_binds=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
        context.execute(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'")
        context.run_migrations()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
