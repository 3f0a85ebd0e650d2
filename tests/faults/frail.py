"""A database that fails at one exact transaction: as if the process died there, or the connection was cut."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Database


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
