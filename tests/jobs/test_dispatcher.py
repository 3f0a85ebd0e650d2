"""What the dispatcher does when Postgres leaves it in doubt."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Database
from tests.world import run_once


class AnswerLost(Database):
    """Commits a transaction, once, whose answer then gets lost."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.lost = False

    async def run(self, work: Callable[[AsyncSession], Awaitable[Any]]) -> Any:
        done = await super().run(work)
        if getattr(work, "__name__", "") == "take" and not self.lost:
            self.lost = True
            raise OperationalError("COMMIT", {}, ConnectionError())
        return done


async def test_a_take_that_may_be_committed_is_put_back_and_sent_once(world, database_url):
    job = await world.order()
    dispatcher = replace(world.dispatcher, db=AnswerLost(database_url))

    await run_once(dispatcher)
    unsent = await world.job(job["id"])
    await run_once(dispatcher)
    sent = await world.job(job["id"])
    await dispatcher.db.close()

    assert (unsent["status"], unsent["attempts"]) == ("queued", 1)
    assert (sent["status"], sent["attempts"]) == ("submitted", 2)
    assert len(await world.books()) == 1
