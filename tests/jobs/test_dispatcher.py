"""What the dispatcher does when Postgres leaves it in doubt."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from sqlalchemy.exc import OperationalError

from app.db import Database
from app.lines import Asked, Few
from tests.databases import done_or_blocked
from tests.world import World, run_once


async def attempts_of_two_rounds(world: World, db: Database) -> list[tuple[str, int]]:
    """Status and attempts of an order after each of two rounds of dispatch over *db*; fal has it once, by then."""
    job = await world.order()
    dispatcher = replace(world.dispatcher, db=db)
    found = []
    for _ in range(2):
        await run_once(dispatcher)
        seen = await world.job(job["id"])
        found.append((seen["status"], seen["attempts"]))
    await db.close()
    assert len(await world.books()) == 1
    return found


class AnswerLost(Database):
    """Commits a transaction, once, whose answer then gets lost."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.lost = False

    async def run_few(self, work: Callable[[Few], Awaitable[Any]]) -> Any:
        done = await super().run_few(work)
        if not self.lost:
            self.lost = True
            raise OperationalError("COMMIT", {}, ConnectionError())
        return done


async def test_a_take_that_may_be_committed_is_put_back_and_sent_once(world, database_url):
    db = AnswerLost(database_url)

    assert await attempts_of_two_rounds(world, db) == [("queued", 1), ("submitted", 2)]


class CommitUnderWay(Database):
    """Loses the connection of a take, once, while Postgres is still busy with its commit, until *go_on*."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.go_on = asyncio.Event()
        self.taking: asyncio.Task[Any] | None = None

    async def run_few(self, work: Callable[[Few], Awaitable[Any]]) -> Any:
        if self.taking is not None:
            return await super().run_few(work)
        written = asyncio.Event()

        async def slow(ask: Few) -> Any:
            async def asked(*asked: Asked, commit: bool = False) -> Any:
                rows = await ask(*asked)
                if commit:
                    written.set()
                    await self.go_on.wait()
                    await ask(("SELECT 1", {}), commit=True)
                return rows

            return await work(asked)

        self.taking = asyncio.create_task(super().run_few(slow))
        await written.wait()
        raise OperationalError("COMMIT", {}, ConnectionError())


async def test_a_take_whose_commit_is_still_under_way_is_waited_for_and_put_back(world, database_url):
    db = CommitUnderWay(database_url)
    job = await world.order()

    (piece,) = await replace(world.dispatcher, db=db).take(1)
    putting_back = asyncio.create_task(piece)
    await done_or_blocked(world.db, putting_back)
    db.go_on.set()
    await putting_back
    assert db.taking is not None
    await db.taking
    await db.close()

    assert (await world.job(job["id"]))["status"] == "queued"
    assert await world.books() == []


class WritingLost(Database):
    """Loses its connection when a take is about to be written, once."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.lost = False

    async def run_few(self, work: Callable[[Few], Awaitable[Any]]) -> Any:
        async def cut(ask: Few) -> Any:
            async def asked(*asked: Asked, commit: bool = False) -> Any:
                if commit and not self.lost:
                    self.lost = True
                    raise OperationalError("COMMIT", {}, ConnectionError())
                return await ask(*asked, commit=commit)

            return await work(asked)

        return await super().run_few(cut)


async def test_a_take_that_was_never_written_leaves_the_job_as_it_was(world, database_url):
    db = WritingLost(database_url)

    assert await attempts_of_two_rounds(world, db) == [("queued", 0), ("submitted", 1)]
