"""Postgres: the base of all tables, the engine, and the one way to run a transaction."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

import psycopg
import uuid_utils.compat
from sqlalchemy import TIMESTAMP, BigInteger, ColumnElement, MetaData, Text, event, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from app.lines import Ask, Few, Line, Lines, is_quiet, uuids

T = TypeVar("T")

# Serialization failure and deadlock: Postgres says "again", and nothing was written.
AGAIN: Final = frozenset({"40001", "40P01"})
TRIES: Final = 8
# Longer than any statement may take. A proxy before Postgres that froze keeps a connection looking alive, so
# the network's own time-outs never notice; without this bound every loop and request on it would wait for ever.
ANSWER_S = 30.0

CLOCKS_APART_S: Final = 3600.0
"""How far the clock of a process that makes ids may be from that of Postgres, which says when a row was written."""
READER: Final = "callsheet_reader"
"""The role as which a caller's data is read; row-level security shows it one tenant's rows."""

# Both settings end with the transaction, so a pooler's next one knows nothing of them; one round trip.
BECOME_READER: Final = text(
    f"SELECT set_config('role', '{READER}', true), set_config('callsheet.tenant', :tenant, true)"
)
BECOME_READER_OF_ALL: Final = f"""
    SELECT set_config('role', '{READER}', true) AS role, set_config('callsheet.tenants', %(readers)s, true) AS tenants;
"""


# A server that vanished without a word is noticed in seconds, and no statement waits for ever.
ALIVE: Final[dict[str, Any]] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "application_name": "callsheet",
    "client_encoding": "utf8",
}
DIRECT: Final[dict[str, Any]] = {
    **ALIVE,
    # Planning takes longer than most statements do, and each of them comes on every connection sooner or later.
    "prepare_threshold": 1,
    "options": "-c statement_timeout=15s -c lock_timeout=10s -c idle_in_transaction_session_timeout=30s",
}
# A transaction-mode pooler hands every transaction another connection: it takes no options and knows no statements.
POOLED: Final[dict[str, Any]] = {**ALIVE, "prepare_threshold": None}


class Base(DeclarativeBase):
    """The base of all tables; every constraint and index has a name."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012
        str: Text,
        int: BigInteger,
        datetime: TIMESTAMP(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),
    }


def new_id() -> UUID:
    """A fresh UUIDv7: made here, so that a repeat after a lost answer can carry the same one; sorts by time."""
    return uuid_utils.compat.uuid7()


def first_id(at: datetime, *, later_s: float = 0) -> UUID:
    """The least that an id can be that is made *later_s* seconds after *at*, or any time after."""
    at_ms = int((at.timestamp() + later_s) * 1000)
    return UUID(int=min(max(at_ms, 0), 2**48 - 1) << 80)


def made(column: Any, after: datetime | None, before: datetime | None) -> list[ColumnElement[bool]]:
    """
    What rows have in common that were written between *after* and *before*: the least and the greatest of their ids.

    For reading them by an index of the id in *column*; their own times must be asked for, too.
    """
    within: list[ColumnElement[bool]] = []
    if after is not None:
        within.append(column >= first_id(after, later_s=-CLOCKS_APART_S))
    if before is not None:
        within.append(column < first_id(before, later_s=CLOCKS_APART_S))
    return within


async def ask_in(session: AsyncSession, statement: str, values: Mapping[str, Any]) -> Sequence[Any]:
    """An `Ask` within the transaction of *session*."""
    found = await (await session.connection()).exec_driver_sql(statement, dict(values))
    return found.all() if found.returns_rows else []


class Database:
    """A pool of connections and the transactions on it."""

    def __init__(self, url: str, *, pool: int = 10, pooler: bool = False) -> None:
        self.url = url
        connect_args = POOLED if pooler else DIRECT
        self.engine: AsyncEngine = create_async_engine(
            url,
            pool_size=pool,
            max_overflow=pool,
            pool_timeout=10,
            # The one used last knows the statements it will be asked, and their plans.
            pool_use_lifo=True,
            # An error of the database must not carry prompts into logs.
            hide_parameters=True,
            connect_args=connect_args,
        )
        event.listen(self.engine.sync_engine, "checkout", _check)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self._lines = Lines(url, most=pool, options=connect_args)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """One transaction: committed at the end, rolled back if the body raises or takes longer than ANSWER_S."""
        try:
            async with asyncio.timeout(ANSWER_S), self._sessions.begin() as session:
                yield session
        except TimeoutError:
            raise PoolTimeout("Postgres gave no answer") from None

    @asynccontextmanager
    async def reading_as(self, tenant_id: UUID) -> AsyncIterator[AsyncSession]:
        """
        One transaction that sees *tenant_id*'s rows and no others, whatever its statements ask for; it can't write.

        Every read on a caller's behalf goes through here, so that a forgotten WHERE shows nobody's data.
        """
        async with self.session() as session:
            await session.execute(BECOME_READER, {"tenant": str(tenant_id)})
            yield session

    async def read_as_all(
        self, tenant_ids: Collection[UUID], statement: str, values: Mapping[str, Any]
    ) -> Sequence[Any]:
        """
        The rows of *statement*, which sees what is *tenant_ids*' and nothing else; what goes to whom is its part.

        `reading_as` for several that ask at once, in a single round trip: Postgres takes both statements as one
        transaction, and plans the second when the first was done.
        """
        async with self._line() as line:
            return await line.ask_all(BECOME_READER_OF_ALL + statement, {**values, "readers": uuids(tenant_ids)})

    async def run(self, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """
        What *work* returns, once its transaction is committed.

        *Work* must be database work only: it runs again from the start when Postgres
        answers with a serialization failure or a deadlock.
        """

        async def once() -> T:
            async with self.session() as session:
                return await work(session)

        return await _again(once)

    async def run_few(self, work: Callable[[Few], Awaitable[T]]) -> T:
        """
        What *work*, which asks a few statements, returns: `run` in fewer round trips, and past the ORM.

        It runs again as there. What it asked is undone, unless the last was asked with `commit`.
        """

        async def once() -> T:
            async with self._line() as line, line.few() as ask:
                return await work(ask)

        return await _again(once)

    async def run_one(self, work: Callable[[Ask], Awaitable[T]], *, plan_anew: bool = False) -> T:
        """
        What *work*, which asks one statement, returns once it is committed: a transaction in a single round trip.

        *plan_anew* is for a statement whose best plan changes with what its table holds from one second to the next.
        It isn't repeated: who calls it, such as `Gatherer`, knows whose statement may be.
        """
        async with self._line() as line:
            return await work(partial(line.ask, prepare=False) if plan_anew else line.ask)

    @asynccontextmanager
    async def _line(self) -> AsyncIterator[Line]:
        try:
            async with asyncio.timeout(ANSWER_S), self._lines.line() as line:
                yield line
        except TimeoutError:
            raise PoolTimeout("Postgres gave no answer") from None
        except psycopg.Error as error:
            # As those get it who ask through the engine.
            raise DBAPIError.instance(None, None, error, psycopg.Error, hide_parameters=True) from error

    async def insist(self, work: Callable[[AsyncSession], Awaitable[T]], *, for_s: float) -> T:
        """
        What *work* returns, even if Postgres is away for a while, up to *for_s* seconds.

        For news that would be lost otherwise. *Work* may run again after it was committed, if
        that answer got lost, so it must do nothing the second time.
        """
        return await _insisted(partial(self.run, work), for_s)

    async def insist_one(self, work: Callable[[Ask], Awaitable[T]], *, for_s: float) -> T:
        """`insist` for *work* that asks one statement, which must do nothing the second time."""
        return await _insisted(partial(self.run_one, work), for_s)

    async def insist_few(self, work: Callable[[Few], Awaitable[T]], *, for_s: float) -> T:
        """`insist` for *work* that asks a few."""
        return await _insisted(partial(self.run_few, work), for_s)

    async def close(self) -> None:
        """Close every connection."""
        await self._lines.close()
        await self.engine.dispose()


async def _again(once: Callable[[], Awaitable[T]]) -> T:
    """What *once* returns; again if Postgres says that nothing was written and the same may succeed now."""
    for attempt in range(TRIES):
        try:
            return await once()
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in AGAIN or attempt == TRIES - 1:
                raise
        await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311
    raise AssertionError("unreachable")


async def _insisted(done: Callable[[], Awaitable[T]], for_s: float) -> T:
    until = time.monotonic() + for_s
    while True:
        try:
            return await done()
        except (OperationalError, InterfaceError, PoolTimeout):
            if time.monotonic() > until:
                raise
        await asyncio.sleep(random.uniform(0.1, 0.5))  # noqa: S311


def _check(connection: Any, *_: object) -> None:
    """Refuse a connection of the pool that ended while it was idle."""
    if not is_quiet(connection.driver_connection):
        raise InvalidatePoolError
