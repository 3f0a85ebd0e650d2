"""
Retention of jobs: long after its end a job gets thin, and no job ever goes.

What is large goes: input, output, events, and what fal told of each attempt. What proves that it was paid for once
stays: the row with its price and its end, its attempts with fal's requests, its entries, and where its files are kept.

A job that somebody may still need whole stays whole: unfinished, not safe yet or given up, or with callbacks.
"""

from datetime import timedelta
from typing import Final

from sqlalchemy import case, delete, func, or_, select, tuple_, type_coerce, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from app.callbacks.tables import Delivery
from app.db import Database
from app.jobs.states import JobStatus
from app.jobs.tables import Attempt, Job, JobEvent
from app.pruning import in_batches

BATCH: Final = 200
"""Jobs of one transaction: about a thousand rows."""


async def thin(db: Database, older_than: timedelta, *, batch: int = BATCH, **bounds: int) -> int:
    """Thin jobs that ended more than *older_than* ago, oldest first, within *bounds*; how many."""
    return await in_batches(db, thin_old, older_than=older_than, batch=batch, **bounds)


async def thin_old(session: AsyncSession, older_than: timedelta, limit: int) -> int:
    """One batch of that: a job's parts go together, or not at all."""
    told = select(Delivery.id).where(Delivery.tenant_id == Job.tenant_id, Delivery.job_id == Job.id)
    ready = (
        select(Job.tenant_id, Job.id)
        .where(
            Job.finished_at < func.now() - older_than,
            Job.thinned_at.is_(None),
            Job.safe_error.is_(None),
            or_(Job.status != JobStatus.SUCCEEDED, Job.safe_at.is_not(None)),
            # Not EXISTS: Postgres would read every delivery there is, to join them with a few jobs.
            told.limit(1).scalar_subquery().is_(None),
        )
        .order_by(Job.finished_at)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True)
        .cte("ready")
    )
    thinned = (
        update(Job)
        .where(tuple_(Job.tenant_id, Job.id).in_(ready.select()))
        .values(thinned_at=func.now(), input={}, output=case((Job.output.is_not(None), type_coerce({}, JSONB))))
        .returning(Job.tenant_id, Job.id)
        .cte("thinned")
    )
    forgotten = (
        delete(JobEvent).where(tuple_(JobEvent.tenant_id, JobEvent.job_id).in_(thinned.select())).cte("forgotten")
    )
    bare = (
        update(Attempt)
        .where(tuple_(Attempt.tenant_id, Attempt.job_id).in_(thinned.select()))
        .values(status_url=None, response_url=None, cancel_url=None, error=None, sent_urls=None)
        .cte("bare")
    )
    count = select(func.count()).select_from(thinned).add_cte(forgotten, bare)
    return (await session.scalars(count)).one()
