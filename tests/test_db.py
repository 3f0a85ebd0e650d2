"""Databases as they come, and transactions that come to an end whatever Postgres does."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app import db as module
from app.db import Database
from app.lines import NOTHING_WRITTEN, Asked, Few
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


async def pid_of(db: Database) -> int:
    ((pid,),) = await db.run_one(lambda ask: ask("SELECT pg_backend_pid()", {}))
    return int(pid)


async def test_a_line_that_ended_while_it_was_idle_is_replaced_unnoticed(db):
    ended = await pid_of(db)
    admin(db.url, f"SELECT pg_terminate_backend({ended}, 10000)")

    assert await pid_of(db) != ended


async def test_a_line_is_kept_for_the_next_one_even_after_a_statement_failed(db):
    kept = await pid_of(db)
    with pytest.raises(IntegrityError) as refused:
        await db.run_one(lambda ask: ask("INSERT INTO accounts (tenant_id) VALUES (gen_random_uuid())", {}))

    # The values of a statement are prompts.
    assert refused.value.hide_parameters
    assert getattr(refused.value.orig, "sqlstate", None) == "23503"
    assert await pid_of(db) == kept


async def test_a_statement_that_gets_no_answer_is_given_up_and_the_next_one_works(db, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_S", 0.05)
    with pytest.raises(PoolTimeout):
        await db.run_one(lambda ask: ask("SELECT pg_sleep(10)", {}))

    monkeypatch.undo()
    assert await db.run_one(lambda ask: ask("SELECT 1", {})) == [(1,)]


async def test_a_line_is_nobodys_reader_again(db):
    await db.read_as_all([uuid4()], "SELECT 1", {})
    ((role,),) = await db.read_as_all([uuid4()], "SELECT current_user", {})
    ((after,),) = await db.run_one(lambda ask: ask("SELECT current_user", {}))

    assert role == module.READER != after


ADD: Asked = ("INSERT INTO tenants (id, name) VALUES (%(id)s, 'a-few')", {"id": UUID(int=7)})
COUNT: Asked = ("SELECT count(*) FROM tenants WHERE name = 'a-few'", {})


async def there_are(db: Database) -> int:
    ((rows,),) = await db.run_few(lambda ask: ask(COUNT))
    return int(rows[0])


async def test_a_few_statements_are_one_transaction_that_ends_with_the_last_of_them(db):
    async def work(ask: Few) -> Any:
        first = await ask(ADD, COUNT)
        outside = await there_are(db)
        ((last,),) = await ask(COUNT, commit=True)
        return [*first, outside, last]

    none, ((within,),), outside, (last,) = await db.run_few(work)

    assert (none, within, outside, last) == ([], 1, 0, 1)
    assert await there_are(db) == 1


async def test_a_few_statements_that_are_not_committed_are_undone_and_their_line_is_kept(db):
    kept = await pid_of(db)

    await db.run_few(lambda ask: ask(ADD))

    assert await there_are(db) == 0
    assert await pid_of(db) == kept


async def test_a_round_that_writes_nothing_leaves_what_is_prepared(db):
    again: Asked = ("SELECT 1 AS found_again", {})
    prepared: Asked = ("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%%found_again%%'", {})

    async def nothing(ask: Few) -> int:
        _, ((count,),) = await ask(again, prepared)
        await ask(NOTHING_WRITTEN, commit=True)
        return int(count)

    counted = [await db.run_few(nothing) for _ in range(4)]

    assert counted[-1] == counted[-2] >= 1


@pytest.mark.parametrize("bad", ["SELECT 1 / 0", "no statement"])
async def test_nothing_is_left_of_a_few_statements_one_of_which_fails(db, bad):
    with pytest.raises(DBAPIError) as refused:
        await db.run_few(lambda ask: ask(ADD, (bad, {}), ADD, commit=True))

    assert getattr(refused.value.orig, "sqlstate", None) in {"22012", "42601"}
    assert await there_are(db) == 0


async def test_a_few_statements_fail_with_what_their_work_raises_and_leave_nothing(db):
    async def work(ask: Few) -> None:
        await ask(ADD)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await db.run_few(work)

    assert await there_are(db) == 0


async def test_a_few_statements_are_asked_again_if_postgres_says_so(db):
    tries: list[int] = []

    async def work(ask: Few) -> Any:
        tries.append(len(tries))
        again = "DO $$ BEGIN RAISE SQLSTATE '40001'; END $$" if len(tries) < 3 else "SELECT 1"
        return await ask(ADD, (again, {}), commit=True)

    await db.run_few(work)

    assert len(tries) == 3
    assert await there_are(db) == 1


async def test_a_few_statements_that_get_no_answer_are_given_up_and_the_next_ones_work(db, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_S", 0.05)
    # Postgres may be too busy to hear that it is given up. It doesn't come to the commit even so: this is longer than
    # a statement may take.
    with pytest.raises(PoolTimeout):
        await db.run_few(lambda ask: ask(ADD, ("SELECT pg_sleep(60)", {}), commit=True))

    monkeypatch.undo()
    assert await there_are(db) == 0


def test_a_database_that_does_not_keep_unicode_is_refused_in_one_line(server):
    admin(server, "CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    url = make_url(server).set(database="ascii").render_as_string(hide_password=False)

    with pytest.raises(SettingsError, match="SQL_ASCII"):
        upgrade(url)

    admin(server, "DROP DATABASE ascii WITH (FORCE)")
