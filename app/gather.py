"""
Sets: what arrives while a commit is under way goes together into the next one.

A row in a set of its likes costs Postgres a fifth of a row in its own transaction, and one balance that
everybody books on is updated once per set. Nobody waits for a set to fill: a lone caller's is written at once,
and nobody is answered before their own commit.

One set at a time: two small ones cost nearly twice as much as one with the members of both. Another is written beside
it only if as many wait as fill one, or if it takes long, as one does that waits for a lock.
"""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.db import AGAIN, TRIES
from app.errors import Unavailable

T = TypeVar("T")
R = TypeVar("R")

MOST: Final = 64
"""Members of a set: more gain little, and wait for each other."""
LONG_S: Final = 0.1
"""How long a set may take before others no longer wait for its end; a full one takes a tenth to a quarter of it."""


class Gatherer(Generic[T, R]):
    """
    Calls *write* with sets of what it is called with, of up to *writers* at a time.

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
        self._at_once = writers
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._writers: set[asyncio.Task[None]] = set()
        self._slow: set[asyncio.Task[None]] = set()

    async def __call__(self, member: T) -> R:
        """What *write* returned for *member*, once its set is committed; raises what befell it, or Unavailable."""
        if len(self._waiting) >= self._crowd:
            raise Unavailable("More is waiting than can be written soon.", headers={"Retry-After": "1"})
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((member, answer))
        self._begin()
        return await answer

    def _begin(self) -> None:
        """Let one more write, if that is wanted."""
        if self._waiting and not self._are_soon_taken() and len(self._writers) < self._at_once:
            writer = asyncio.create_task(self._write_all())
            self._writers.add(writer)
            # Also if it is cancelled before it began.
            writer.add_done_callback(self._writers.discard)

    def _are_soon_taken(self, *, but: "asyncio.Task[None] | None" = None) -> bool:
        """Whether one who writes, *but* that one, will take all who wait with the next set, and that soon."""
        return bool(self._writers - self._slow - {but}) and len(self._waiting) < self._most

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        writer: Any = asyncio.current_task()
        try:
            while self._waiting and not self._are_soon_taken(but=writer):
                together = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
                takes_long = loop.call_later(LONG_S, self._takes_long, writer)
                try:
                    # Whoever hung up before it was their turn has asked for nothing.
                    await self._answer([pair for pair in together if not pair[1].cancelled()])
                finally:
                    takes_long.cancel()
                    self._slow.discard(writer)
        finally:
            self._writers.discard(writer)

    def _takes_long(self, writer: "asyncio.Task[None]") -> None:
        self._slow.add(writer)
        self._begin()

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
