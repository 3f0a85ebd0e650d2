"""Databases as they come, and transactions that come to an end whatever Postgres does."""

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app import db as module
from app.migrate import upgrade
from app.settings import SettingsError
from tests.conftest import admin


async def test_a_transaction_that_gets_no_answer_is_given_up_and_the_next_one_works(db, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_S", 0.05)
    with pytest.raises(PoolTimeout):
        await db.run(lambda session: session.execute(text("SELECT pg_sleep(10)")))

    monkeypatch.undo()
    answer = await db.run(lambda session: session.scalar(text("SELECT 1")))

    assert answer == 1


async def test_connections_that_ended_while_they_were_idle_are_replaced_unnoticed(db):
    pid = text("SELECT pg_backend_pid()")
    async with db.session() as one, db.session() as two:
        ended = [await one.scalar(pid), await two.scalar(pid)]
    admin(db.url, f"SELECT pg_terminate_backend(pid, 10000) FROM unnest(ARRAY{ended}) AS pid")

    async with db.session() as one, db.session() as two:
        found = [await one.scalar(pid), await two.scalar(pid)]

    assert not {*found} & {*ended}


def test_a_database_that_does_not_keep_unicode_is_refused_in_one_line(server):
    admin(server, "CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    url = make_url(server).set(database="ascii").render_as_string(hide_password=False)

    with pytest.raises(SettingsError, match="SQL_ASCII"):
        upgrade(url)

    admin(server, "DROP DATABASE ascii WITH (FORCE)")
