"""We end jobs whose deadline passed while they waited, for free."""

from collections.abc import Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from app.db import Database
from app.jobs import intake


@dataclass(frozen=True, slots=True)
class Expirer:
    """
    Looks by itself every so often: that a moment has passed, nobody announces.

    Apart from the dispatcher, so that a job that can't be expired doesn't keep the others from being sent.
    """

    db: Database
    at_once: int = 100

    async def take(self, limit: int) -> list[Coroutine[Any, Any, None]]:
        """Ends up to *limit* of them; what is left is nothing but that it is told, and looked for more."""
        return [_done()] if await self.db.run(partial(intake.expire, limit=limit)) else []


async def _done() -> None:
    pass
