"""What the dispatcher does when Postgres leaves it in doubt."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from sqlalchemy.exc import OperationalError

from app.db import Database
from app.lines import Asked, Few
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
