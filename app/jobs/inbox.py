"""Retention of the webhook inbox: what fal sent is kept for a while, then goes, a little at a time."""

from datetime import timedelta

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Database
from app.jobs.tables import WebhookDelivery
from app.pruning import delete_oldest, in_batches


async def prune(db: Database, older_than: timedelta, **bounds: int) -> int:
    """Delete deliveries that came more than *older_than* ago, oldest first, within *bounds*; how many."""
    return await in_batches(db, delete_old, older_than=older_than, **bounds)


async def delete_old(session: AsyncSession, older_than: timedelta, limit: int) -> int:
    """One batch of that. What a repeat is raising right now is left for the next run."""
    old = WebhookDelivery.received_at < func.now() - older_than
    return await delete_oldest(session, WebhookDelivery, WebhookDelivery.received_at, old, limit=limit)
