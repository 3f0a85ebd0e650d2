"""A database that fails at one exact transaction: as if the process died there, or the connection was cut."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Database, ask_in
from app.jobs import accepting, settling
from app.lines import Ask, Few
from tests.databases import few_in

T = TypeVar("T")


class Died(Exception):
    """The process is gone: nothing it wanted to do after this happens."""


class Moment(StrEnum):
    """When it fails, seen from the commit."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Fault:
    """The transaction it befalls, counted from 1, and whether the process outlives it."""

    number: int
    moment: Moment
    dies: bool


class Frail(Database):
    """*db*, with a *fault*."""

    def __init__(self, db: Database, fault: Fault) -> None:
        # The same connections; only the way to them is worse.
        self.__dict__.update(db.__dict__)
        self._fault = fault
        self._count = 0

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """As ever, but for that one time; a dead process runs nothing any more."""
        self._count += 1
        number, fault = self._count, self._fault
        error = Died() if fault.dies else OperationalError("cut", None, Exception("cut"))
        if number > fault.number and fault.dies:
            raise error
        async with super().session() as session:
            yield session
            if number == fault.number and fault.moment is Moment.BEFORE:
                raise error
        if number == fault.number:
            raise error

    async def run_one(self, work: Callable[[Ask], Awaitable[T]], *, plan_anew: bool = False) -> T:
        """A statement that is its own transaction fails like any other."""
        async with self.session() as session:
            return await work(partial(ask_in, session))

    async def run_few(self, work: Callable[[Few], Awaitable[T]]) -> T:
        """So does a transaction of a few; what isn't committed with the last of them is undone."""
        async with self.session() as session:
            done = await work(few_in(session))
            if not session.info.get("commits"):
                await session.rollback()
            return done


@contextmanager
def frail_api(state: Any, fault: Fault) -> Iterator[None]:
    """The API of *state* has *fault* in what it writes, while the block runs."""
    whole = {name: getattr(state, name) for name in ("db", "accepting", "settling")}
    state.db = Frail(state.db, fault)
    state.accepting, state.settling = accepting.gatherer(state.db), settling.gatherer(state.db)
    try:
        yield
    finally:
        for name, part in whole.items():
            setattr(state, name, part)
