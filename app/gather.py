"""
Sets: what arrives while a commit is under way goes together into the next one.

A row in a set of its likes costs Postgres a fifth of a row in its own transaction, and one balance that
everybody books on is updated once per set. Nobody waits for a set to fill: a lone caller's is written at once,
and nobody is answered before their own commit.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.db import AGAIN, TRIES
from app.errors import Unavailable

T = TypeVar("T")
R = TypeVar("R")

MOST: Final = 64
"""Members of a set: more gain little, and wait for each other."""


class Gatherer(Generic[T, R]):
    """
    Calls *write* with sets of what it is called with, on up to *writers* connections.

    *write* returns one result for each member. Where it raises, nothing of the set is committed, or nobody knows. A
    set that Postgres refuses for what is in it is written again one by one, so one bad member fails alone. One whose
    fate is unknown, because the database went away, is never written again: all its callers get that error.
    """

    def __init__(
        self,
        write: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        writers: int = 2,
        most: int = MOST,
        crowd: int = 4_000,
    ) -> None:
        self._write = write
        self._most = most
        self._crowd = crowd
        self._free = writers
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._writers: set[asyncio.Task[None]] = set()

    async def __call__(self, member: T) -> R:
        """What *write* returned for *member*, once its set is committed; raises what befell it, or Unavailable."""
        if len(self._waiting) >= self._crowd:
            raise Unavailable("More is waiting than can be written soon.", headers={"Retry-After": "1"})
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((member, answer))
        if self._free:
            self._free -= 1
            writer = asyncio.create_task(self._write_all())
            self._writers.add(writer)
            writer.add_done_callback(self._writers.discard)
        return await answer

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                together = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
                # Whoever hung up before it was their turn has asked for nothing.
                await self._answer([pair for pair in together if not pair[1].cancelled()])
        finally:
            self._free += 1

    async def _answer(self, pairs: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        if not pairs:
            return
        try:
            results = await self._written([member for member, _ in pairs])
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            _fail(pairs, error)
        except Exception as error:  # noqa: BLE001 - each caller gets it
            if len(pairs) == 1:
                _fail(pairs, error)
                return
            for pair in pairs:
                await self._answer([pair])
        except BaseException as error:
            _fail(pairs, error)
            raise
        else:
            for (_, answer), result in zip(pairs, results, strict=True):
                if not answer.done():
                    answer.set_result(result)

    async def _written(self, members: Sequence[T]) -> Sequence[R]:
        """Write them; again if Postgres says that nothing was written and the same may succeed now."""
        for attempt in range(TRIES):
            try:
                return await self._write(members)
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in AGAIN or attempt == TRIES - 1:
                    raise
            await asyncio.sleep(random.uniform(0, 0.01 * 2**attempt))  # noqa: S311
        raise AssertionError("unreachable")


def _fail(pairs: Sequence[tuple[T, asyncio.Future[R]]], error: BaseException) -> None:
    for _, answer in pairs:
        if not answer.done():
            answer.set_exception(error)
