"""
Straight to Postgres: connections on which a transaction takes one round trip for a statement, or two for a few.

What a session and its pool do around a statement costs us several times as much as the statement. That is fine for
one request; where `Gatherer` brings those of many together, it would be most of the work.
"""

import asyncio
import select
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Final, Protocol
from uuid import UUID

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import namedtuple_row
from pydantic_core import to_json

Ask = Callable[[str, Mapping[str, Any]], Awaitable[Sequence[Any]]]
"""The rows that a statement brings, with these values in it."""
Asked = tuple[str, Mapping[str, Any]]
"""A statement, and the values in it."""


BEGIN: Final[Asked] = ("BEGIN", {})
COMMIT: Final[Asked] = ("COMMIT", {})
ROLLBACK: Final[Asked] = ("ROLLBACK", {})
NOTHING_WRITTEN: Final[Asked] = ("SET LOCAL synchronous_commit = off", {})
"""Asked with `commit` where there were locks alone: no disk is waited for, and what psycopg has prepared is kept."""


@cache
def _raw(statement: str) -> bytes:
    """*statement*, a constant, as psycopg takes it from anywhere; the same object each time, or it is hashed anew."""
    return statement.encode()


def told(rows: Collection[Mapping[str, Any]]) -> dict[str, Any]:
    """
    The values of a statement that reads *rows* `FROM json_to_recordset(%(told)s) ... LIMIT (SELECT %(many)s)`.

    Of JSON Postgres takes it that there are a hundred; to find so many it would read all of a table that isn't large.
    A limit that it can't know when it plans, it takes to be a tenth of that.
    """
    return {"told": to_json(list(rows)).decode(), "many": len(rows)}


def uuids(ids: Iterable[UUID]) -> str:
    """*ids* as Postgres reads an array of them; psycopg looks at each one several times to write the same."""
    return "{" + ",".join(map(str, ids)) + "}"


def bytea(raw: bytes) -> str:
    """*raw* as Postgres reads it where it comes as text, such as in the JSON of a set."""
    return "\\x" + raw.hex()


class Few(Protocol):
    """A transaction of a few statements, in as few round trips."""

    async def __call__(self, *asked: Asked, commit: bool = False) -> Sequence[Sequence[Any]]:
        """The rows of each; all go out at once, and with *commit* the end of the transaction does, too."""


class Line:
    """A connection that nobody else uses just now."""

    def __init__(self, connection: "psycopg.AsyncConnection[Any]") -> None:
        self.connection = connection

    async def ask(self, statement: str, values: Mapping[str, Any], *, prepare: bool | None = None) -> Sequence[Any]:
        """The rows of *statement*, once it is committed; planned each time anew if *prepare* is False."""
        async with self.connection.cursor(row_factory=namedtuple_row) as cursor:
            await cursor.execute(_raw(statement), values, prepare=prepare)
            return await cursor.fetchall()

    async def ask_together(self, *asked: Asked) -> Sequence[Sequence[Any]]:
        """The rows of each, in a single round trip; one that Postgres refuses is the last that is done."""
        cursors = [self.connection.cursor(row_factory=namedtuple_row) for _ in asked]
        try:
            async with self.connection.pipeline():
                for cursor, (statement, values) in zip(cursors, asked, strict=True):
                    await cursor.execute(_raw(statement), values)
        except psycopg.errors.PipelineAborted as aborted:
            # What Postgres refused comes before what it then left undone.
            refused = aborted.__context__
            raise refused if isinstance(refused, psycopg.Error) else aborted from None
        return [await cursor.fetchall() if cursor.description is not None else [] for cursor in cursors]

    @asynccontextmanager
    async def few(self) -> AsyncIterator[Few]:
        """
        A transaction that begins with what is asked first, and ends with what is asked with `commit`, or undone.

        After a ROLLBACK psycopg lets go of every statement that it has prepared on the connection: that isn't for what
        happens all the time.
        """
        open_ = False

        async def ask(*asked: Asked, commit: bool = False) -> Sequence[Sequence[Any]]:
            nonlocal open_
            begin, end = [] if open_ else [BEGIN], [COMMIT] if commit else []
            open_ = not commit
            rows = await self.ask_together(*begin, *asked, *end)
            return rows[len(begin) : len(begin) + len(asked)]

        yield ask
        if open_:
            await self.ask_together(ROLLBACK)

    async def ask_all(self, statements: str, values: Mapping[str, Any]) -> Sequence[Any]:
        """
        The rows of the last of *statements*, once all are committed together.

        Each is planned when those before it were done, so it may depend on what they set.
        """
        # Several go together only if their values are written into them here, as text.
        async with psycopg.AsyncClientCursor(self.connection, row_factory=namedtuple_row) as cursor:
            await cursor.execute(_raw(statements), values)
            while cursor.nextset():
                pass
            return await cursor.fetchall()


class Lines:
    """Up to *most* of them, each opened when it is first needed."""

    def __init__(self, url: str, *, most: int, options: Mapping[str, Any]) -> None:
        self._dsn = url.replace("postgresql+psycopg://", "postgresql://", 1)
        self._options = options
        self._free = asyncio.Semaphore(most)
        self._idle: list[psycopg.AsyncConnection[Any]] = []

    @asynccontextmanager
    async def line(self) -> AsyncIterator[Line]:
        """One of them; kept for the next who comes, unless a statement was left on it half-way."""
        async with self._free:
            connection = await self._kept() or await psycopg.AsyncConnection.connect(
                self._dsn, autocommit=True, **self._options
            )
            try:
                yield Line(connection)
            finally:
                if connection.info.transaction_status is TransactionStatus.IDLE:
                    self._idle.append(connection)
                else:
                    await connection.close()

    async def _kept(self) -> "psycopg.AsyncConnection[Any] | None":
        # The one used last knows the statements it will be asked, and their plans.
        while self._idle:
            connection = self._idle.pop()
            if is_quiet(connection):
                return connection
            await connection.close()
        return None

    async def close(self) -> None:
        """Close those that nobody uses."""
        while self._idle:
            await self._idle.pop().close()


def is_quiet(idle: "psycopg.AsyncConnection[Any]") -> bool:
    """
    Whether nothing came on an *idle* connection that nobody asked for, such as its end.

    It finds what a ping finds after a restart or a fail-over, and is no round trip.
    """
    readable = select.poll()
    readable.register(idle.fileno(), select.POLLIN)
    return not readable.poll(0)
