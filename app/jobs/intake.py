"""
What we decide about a job before fal knows of it: accept, replay, expire; `taking` has how it is sent.

Each function works inside the transaction it is given; `lifecycle` has what follows from fal's news.
"""

import secrets
from functools import partial
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app import money
from app.billing.ledger import InsufficientFunds
from app.billing.prices import Quote
from app.db import ask_in
from app.errors import AppError
from app.files import addresses
from app.files import queries as files
from app.jobs import accepting
from app.jobs.accepting import Accepting
from app.jobs.lifecycle import JobKey, end
from app.jobs.order import Order
from app.jobs.states import JobStatus
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


async def accept(session: AsyncSession, caller: Caller, order: Order, quote: Quote) -> tuple[Job, bool]:
    """
    The job for *order* with its price held, and whether it is new.

    The same idempotency key brings back the same job; with another order it raises
    IdempotencyConflict. Raises InsufficientFunds if the price can't be held, or TokenSpent
    if a browser token may not spend so much.
    """
    (made,) = await accepting.accept(partial(ask_in, session), [Accepting(caller, order, quote)])
    if made is None:
        # A concurrent order with the same key, or retry of the same job, has committed by now.
        replayed = await replay(session, caller, order)
        if replayed is None:
            raise InsufficientFunds(f"This order would hold {money.to_text(quote.amount)} USD.")
        return replayed, False
    files.use(session, caller.tenant_id, made.id, addresses.ids(order.input))
    await minting.spend(session, caller, quote.amount)
    return await session.get_one(Job, (caller.tenant_id, made.id)), True


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
    # Accounts are locked in the order of their ids, as sets do it.
    keys = sorted(JobKey(*row) for row in (await session.execute(overdue)).all())
    for key in keys:
        await end(session, key, JobStatus.EXPIRED, "deadline passed before it was sent", error=dict(EXPIRY_ERROR))
    return len(keys)
