"""Retention of the webhook inbox: what fal sent is kept for a while, then goes, a little at a time."""

from datetime import timedelta
from typing import Final

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Database
from app.jobs.tables import WebhookDelivery

EVERY_S: Final = 60.0
"""How often it is done: little and often, which with the bounds below is 14 million rows a day."""
BATCH: Final = 500
BATCHES: Final = 20


async def prune(db: Database, older_than: timedelta, *, batch: int = BATCH, batches: int = BATCHES) -> int:
    """
    Delete deliveries that came more than *older_than* ago, oldest first; how many.

    At most *batches* of *batch* rows go in one run, each in a transaction of its own: no lock is held for long, and
    vacuum gets the room back between two runs.
    """
    deleted = 0
    for _ in range(batches):
        gone = await db.run(lambda session: _delete(session, older_than, batch))
        deleted += gone
        if gone < batch:
            break
    return deleted


async def _delete(session: AsyncSession, older_than: timedelta, limit: int) -> int:
    oldest = (
        select(WebhookDelivery.id)
        .where(WebhookDelivery.received_at < func.now() - older_than)
        .order_by(WebhookDelivery.received_at)
        .limit(limit)
        # A repeat of an old delivery may be under way; it is left for the next run.
        .with_for_update(skip_locked=True)
    )
    # As a CTE it is picked once; as a plain subquery it could be run again for each row.
    old = WebhookDelivery.id.in_(oldest.cte("oldest").select())
    done = await session.execute(delete(WebhookDelivery).where(old).execution_options(synchronize_session=False))
    return int(done.rowcount)  # type: ignore[attr-defined]
