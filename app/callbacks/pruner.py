"""Retention of callbacks: what was taken, or given up, is kept for a while with every try, then goes."""

from datetime import timedelta

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from app.callbacks.tables import Delivery
from app.db import Database
from app.pruning import delete_oldest, in_batches


async def prune(db: Database, older_than: timedelta, **bounds: int) -> int:
    """Delete what was to be told *older_than* ago and is settled, oldest first, within *bounds*; how many."""
    return await in_batches(db, delete_old, older_than=older_than, **bounds)


async def delete_old(session: AsyncSession, older_than: timedelta, limit: int) -> int:
    """One batch of that; its tries go with it. What is still due stays, and a replay makes it young again."""
    old = (Delivery.due_at.is_(None), Delivery.queued_at < func.now() - older_than)
    return await delete_oldest(session, Delivery, Delivery.queued_at, *old, limit=limit)
