"""
Row-level security, for migrations: what is read on a caller's behalf is read as a role that sees one tenant.

A migration that makes a table with a `tenant_id` ends with `protect("its_name")`; a test names those that don't.
"""

from alembic import context, op
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from app.db import READER
from app.settings import SettingsError

POLICY = "tenant_reads"
MINE = "tenant_id = nullif(current_setting('callsheet.tenant', true), '')::uuid"
OURS = "tenant_id = ANY (nullif(current_setting('callsheet.tenants', true), '')::uuid[])"
# Duplicate object, unique violation, and "tuple concurrently updated": another database of the cluster was quicker.
MADE_MEANWHILE = {"42710", "23505", "XX000"}


def protect(table: str) -> None:
    """Let the reader see of *table* what is its tenant's, and nothing else; the owner's own reads aren't bound."""
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY {POLICY} ON {table} FOR SELECT TO {READER} USING ({MINE})")
    op.execute(f"GRANT SELECT ON {table} TO {READER}")


def show_together(table: str) -> None:
    """Let the reader see of *table* what is of several tenants', when these ask together."""
    op.execute(f"CREATE POLICY {POLICY}_together ON {table} FOR SELECT TO {READER} USING ({OURS})")


def unprotect(table: str) -> None:
    """Take that back."""
    op.execute(f"REVOKE SELECT ON {table} FROM {READER}")  # noqa: S608 - names of ours
    op.execute(f"DROP POLICY {POLICY} ON {table}")
    op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")


def make_reader() -> None:
    """
    The reader's role, which this user may become.

    Roles belong to the whole cluster: it may be there, or be made by another database's migration right now.
    Raises SettingsError, with what to run instead, if this user may not make it.
    """
    if context.is_offline_mode():
        op.execute(f"CREATE ROLE {READER} NOLOGIN")
        op.execute(f"GRANT {READER} TO CURRENT_USER")
        return
    connection = op.get_bind()
    known = text("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :reader)")
    if not connection.scalar(known, {"reader": READER}):
        _try(connection, f"CREATE ROLE {READER} NOLOGIN")
    if not _may_become_it(connection):
        _try(connection, f"GRANT {READER} TO CURRENT_USER")
    if not _may_become_it(connection):
        user = connection.scalar(text("SELECT current_user"))
        raise SettingsError(
            f"DATABASE_URL: {user} may not make the role {READER}, as which callers' data is read."
            f' Let a superuser run, once:  CREATE ROLE {READER} NOLOGIN; GRANT {READER} TO "{user}";'
        )


def _try(connection: Connection, statement: str) -> None:
    try:
        with connection.begin_nested():
            connection.execute(text(statement))
    except DBAPIError as error:
        # Refused: whether that matters is asked next.
        if getattr(error.orig, "sqlstate", None) not in {*MADE_MEANWHILE, "42501", "42704"}:
            raise


def _may_become_it(connection: Connection) -> bool:
    try:
        with connection.begin_nested():
            connection.execute(text(f"SET LOCAL ROLE {READER}"))
            connection.execute(text("RESET ROLE"))
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) in {"42501", "22023"}:
            return False
        raise
    return True
