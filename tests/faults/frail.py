"""A database that fails at one exact transaction: as if the process died there, or the connection was cut."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy.exc import OperationalError

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
        self._run = 0

    async def run(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        """As ever, but for that one time; a dead process runs nothing any more."""
        self._run += 1
        fault = self._fault
        if self._run < fault.number or (self._run > fault.number and not fault.dies):
            return await super().run(work)
        error = Died() if fault.dies else OperationalError("cut", None, Exception("cut"))
        if self._run > fault.number:
            raise error

        async def rolled_back(session: Any) -> Any:
            await work(session)
            raise error

        if fault.moment is Moment.BEFORE:
            return await super().run(rolled_back)
        await super().run(work)
        raise error
