"""
What we decide about a job before fal knows of it: accept, replay, expire; `taking` has how it is sent.

Each function works inside the transaction it is given; `lifecycle` has what follows from fal's news.
"""

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing import ledger
from app.billing.prices import Quote
from app.callbacks import outbox
from app.db import new_id
from app.errors import AppError
from app.files import addresses
from app.files import queries as files
from app.jobs.lifecycle import JobKey, end, note
from app.jobs.states import JobStatus, Priority
from app.jobs.tables import Job
from app.tenants import minting
from app.tenants.caller import Caller

EXPIRY_ERROR: Final = {
    "code": "deadline_passed",
    "title": "The deadline passed before the job was sent to fal.",
    "detail": None,
    "retryable": True,
}


class IdempotencyConflict(AppError):
    """This Idempotency-Key was used for a different order; send a new key with a new order."""

    status, code = 409, "idempotency_conflict"


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller asks for, already checked against the model's schema."""

    model: str
    input: dict[str, Any]
    metadata: dict[str, str] = field(default_factory=dict)
    end_user: str | None = None
    priority: Priority = Priority.NORMAL
    run_after: datetime | None = None
    deadline_s: float | None = None
    callback_url: str | None = None
    idempotency_key: str | None = None
    digest: bytes = b""
    retry_of: UUID | None = None


async def accept(session: AsyncSession, caller: Caller, order: Order, quote: Quote) -> tuple[Job, bool]:
    """
    The job for *order* with its price held, and whether it is new.

    The same idempotency key brings back the same job; with another order it raises
    IdempotencyConflict. Raises InsufficientFunds if the price can't be held, or TokenSpent
    if a browser token may not spend so much.
    """
    job = await session.scalar(
        insert(Job)
        .values(
            tenant_id=caller.tenant_id,
            id=new_id(),
            api_key_id=caller.key_id,
            browser_token_id=caller.token and caller.token.token_id,
            model=order.model,
            input=order.input,
            labels=order.metadata,
            end_user=order.end_user,
            priority=order.priority,
            idempotency_key=order.idempotency_key,
            order_digest=order.digest,
            retry_of=order.retry_of,
            callback_url=order.callback_url,
            status=JobStatus.QUEUED,
            event_count=1,
            seconds=quote.seconds,
            measured=quote.is_maximum,
            min_seconds=quote.min_seconds,
            step_seconds=quote.step_seconds,
            price_per_second=quote.price.per_second,
            base_amount=quote.price.base_amount,
            base_seconds=quote.price.base_seconds,
            quoted=quote.amount,
            run_after=order.run_after,
            deadline_at=func.now() + timedelta(seconds=order.deadline_s) if order.deadline_s is not None else None,
            due_at=order.run_after or func.now(),
        )
        # A concurrent order with the same key, or retry of the same job, waits here until the first has committed.
        .on_conflict_do_nothing()
        .returning(Job)
    )
    if job is None:
        replayed = await replay(session, caller, order)
        assert replayed is not None, "nothing but a repeat conflicts"  # noqa: S101
        return replayed, False
    files.use(session, job.tenant_id, job.id, addresses.ids(order.input))
    await minting.spend(session, caller, quote.amount)
    await ledger.hold(session, job.tenant_id, job.id, quote.amount)
    if order.callback_url is not None:
        await outbox.ensure_of_jobs(session, job.tenant_id)
    note(session, job, "accepted")
    return job, True


async def replay(session: AsyncSession, caller: Caller, order: Order) -> Job | None:
    """
    The job that *order*'s idempotency key stands for, or the retry that it repeats; None if it is new.

    Raises IdempotencyConflict if the key stands for another order.
    """
    if order.retry_of is not None:
        repeated = select(Job).where(Job.tenant_id == caller.tenant_id, Job.retry_of == order.retry_of)
        found: Job | None = await session.scalar(repeated)
        return found
    if order.idempotency_key is None:
        return None
    known = select(Job).where(Job.tenant_id == caller.tenant_id, Job.idempotency_key == order.idempotency_key)
    job = await session.scalar(known)
    if job is not None and not secrets.compare_digest(job.order_digest, order.digest):
        raise IdempotencyConflict
    return job


async def expire(session: AsyncSession, *, limit: int) -> int:
    """End up to *limit* jobs whose deadline passed before anything was sent; free. Returns how many."""
    overdue = (
        select(Job.tenant_id, Job.id)
        .where(Job.status == JobStatus.QUEUED, Job.deadline_at <= func.now())
        .order_by(Job.deadline_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    keys = [JobKey(*row) for row in (await session.execute(overdue)).all()]
    for key in keys:
        await end(session, key, JobStatus.EXPIRED, "deadline passed before it was sent", error=dict(EXPIRY_ERROR))
    return len(keys)
