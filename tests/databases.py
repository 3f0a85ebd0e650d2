"""
A database for each test: the only one of its name, empty but for its tables, and gone for whoever stays on after it.

Beneath, the same files are used again: making and dropping a database copies and syncs hundreds of them, which took
longer than most tests. Deleting rows takes a thousandth of that. What can't be made as new this way is dropped.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Database
from app.lines import Asked, Few

# By the time its turn comes again, the connections of the test before last are gone for sure.
WAITING = 2
# More would leave pages and statistics behind that a new database hasn't.
FEW_ROWS = 2_000

TABLES = """
    SELECT relname FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'alembic_version'
"""
# Whatever a statement changes about tables, it writes a new row here: a version, an index, a policy, a right.
# ANALYZE and autovacuum write theirs in place.
SHAPE = """
    SELECT (SELECT string_agg(version_num, ',') FROM alembic_version),
           (SELECT (count(*), sum(xmin::text::bigint))::text FROM pg_class),
           (SELECT (count(*), sum(xmin::text::bigint))::text FROM pg_attribute),
           (SELECT (count(*), sum(xmin::text::bigint))::text FROM pg_constraint),
           (SELECT (count(*), sum(xmin::text::bigint))::text FROM pg_index),
           (SELECT (count(*), sum(xmin::text::bigint))::text FROM pg_policy),
           (SELECT (count(*), sum(xmin::text::bigint))::text FROM pg_trigger),
           (SELECT (count(*), sum(xmin::text::bigint))::text FROM pg_proc),
           (SELECT (count(*), sum(xmin::text::bigint))::text FROM pg_namespace WHERE nspname NOT LIKE 'pg%temp%'),
           (SELECT count(*) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase
            WHERE datname = current_database())
"""


def url_of(server: str, name: str) -> str:
    """The address of one of its databases."""
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def connected(url: str) -> "psycopg.Connection[tuple[object, ...]]":
    """A connection whose statements commit by themselves."""
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


class Databases:
    """Copies of *template*, a database without rows on *server*, for one test after the other."""

    def __init__(self, server: str, template: str) -> None:
        self._server = server
        self._template = template
        self._used: deque[str] = deque()
        self._admin = connected(server)
        with connected(url_of(server, template)) as connection:
            self._tables = [sql.Identifier(str(name)) for (name,) in connection.execute(TABLES)]
            for table in self._tables:
                filled = connection.execute(sql.SQL("SELECT FROM {} LIMIT 1").format(table)).rowcount
                assert not filled, f"{table.as_string()} has rows, which nobody would put back"
            self._shape = connection.execute(SHAPE).fetchone()

    def take(self) -> str:
        """The address of a database for one test."""
        name = f"test_{uuid4().hex}"
        if len(self._used) <= WAITING or not self._renewed(self._used.popleft(), name):
            self._do("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy", name, self._template)
        return url_of(self._server, name)

    def give_back(self, url: str) -> None:
        """Whatever was done to the database at *url*, the next test won't notice."""
        self._used.append(str(make_url(url).database))

    def close(self) -> None:
        """Drop them all."""
        for name in self._used:
            self._do("DROP DATABASE {} WITH (FORCE)", name)
        self._admin.close()

    def _renewed(self, old: str, name: str) -> bool:
        """Whether the database called *old* is as new, and called *name*; else it is gone."""
        try:
            self._admin.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [old]
            )
            # Whoever still knows the old name finds nothing there, least of all this test's rows.
            self._do("ALTER DATABASE {} RENAME TO {}", old, name)
        except psycopg.Error:
            self._do("DROP DATABASE {} WITH (FORCE)", old)
            return False
        try:
            with connected(url_of(self._server, name)) as connection:
                connection.execute("SET session_replication_role = replica")
                deleted = sum(
                    connection.execute(sql.SQL("DELETE FROM {}").format(table)).rowcount for table in self._tables
                )
                if deleted <= FEW_ROWS and connection.execute(SHAPE).fetchone() == self._shape:
                    return True
        except psycopg.Error:
            pass
        self._do("DROP DATABASE {} WITH (FORCE)", name)
        return False

    def _do(self, statement: str, *names: str) -> None:
        self._admin.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def few_in(session: AsyncSession) -> Few:
    """Asks within the transaction of *session*, one after the other; it ends when that does."""

    async def ask(*asked: Asked, commit: bool = False) -> Sequence[Sequence[Any]]:
        connection = await session.connection()
        session.info["commits"] = commit
        done = [await connection.exec_driver_sql(statement, dict(values)) for statement, values in asked]
        return [rows.all() if rows.returns_rows else [] for rows in done]

    return ask


BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


async def done_or_blocked(db: Database, task: "asyncio.Task[Any]") -> None:
    """Wait until *task* is over, or some statement in *db* waits for a lock."""
    async with asyncio.timeout(10):
        while not task.done() and not await db.run(lambda session: session.scalar(text(BLOCKED))):
            await asyncio.sleep(0.01)
