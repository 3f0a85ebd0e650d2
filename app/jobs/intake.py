"""
What we decide about a job before fal knows of it: accept, replay, take, expire.

Each function works inside the transaction it is given; `lifecycle` has what follows from fal's news.
"""

import secrets
from typing import Final, NamedTuple

from sqlalchemy import func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from app import leases, money
from app.billing.ledger import InsufficientFunds
from app.billing.prices import Quote
from app.callbacks import outbox
from app.db import new_id
from app.errors import AppError
from app.files import addresses
from app.files import queries as files
from app.jobs import accepting, accounts, lanes
from app.jobs.accepting import Accepting
from app.jobs.fairness import Caps, Choice, Room, choose
from app.jobs.lifecycle import JobKey, end, note
from app.jobs.order import Order
from app.jobs.states import AttemptStatus, JobStatus
from app.jobs.tables import Attempt, FalAccount, Job
from app.jobs.tokens import new_token, token_digest
from app.tenants import minting
from app.tenants.caller import Caller

EXPIRY_ERROR: Final = {
    "code": "deadline_passed",
    "title": "The deadline passed before the job was sent to fal.",
    "detail": None,
    "retryable": True,
}


NO_CAPS: Final = Caps()


class IdempotencyConflict(AppError):
    """This Idempotency-Key was used for a different order; send a new key with a new order."""

    status, code = 409, "idempotency_conflict"


class Intent(NamedTuple):
    """A job about to be sent, its attempt, and the token of the attempt's own webhook URL."""

    job: Job
    attempt: Attempt
    token: str
    probe: bool = False
    """It is let through to see whether a locked account is open again."""


async def accept(session: AsyncSession, caller: Caller, order: Order, quote: Quote) -> tuple[Job, bool]:
    """
    The job for *order* with its price held, and whether it is new.

    The same idempotency key brings back the same job; with another order it raises
    IdempotencyConflict. Raises InsufficientFunds if the price can't be held, or TokenSpent
    if a browser token may not spend so much.
    """
    (made,) = await accepting.accept(await session.connection(), [Accepting(caller, order, quote)])
    if made is None:
        # A concurrent order with the same key, or retry of the same job, has committed by now.
        replayed = await replay(session, caller, order)
        if replayed is None:
            raise InsufficientFunds(f"This order would hold {money.to_text(quote.amount)} USD.")
        return replayed, False
    files.use(session, caller.tenant_id, made.id, addresses.ids(order.input))
    await minting.spend(session, caller, quote.amount)
    if order.callback_url is not None:
        await outbox.ensure_of_jobs(session, caller.tenant_id)
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


async def take(session: AsyncSession, *, owner: str, limit: int, lease_s: float, caps: Caps = NO_CAPS) -> list[Intent]:
    """
    Up to *limit* due jobs within *caps*, each with an attempt written down before anything is sent.

    Until fal's answer is recorded such a job is `submitting`; if the worker dies, the lease runs out and
    the reconciler finds it: then nobody knows whether fal has it.
    """
    # From here to the commit no other worker chooses: what is counted stays true.
    rows = await accounts.hold(session, caps.accounts)
    left = await lanes.room_left(session, caps)
    left.probed = await accounts.due_probes(session, rows)
    for row in rows:
        if row.locked_why is not None:
            left.accounts[row.name] = min(left.accounts[row.name], 1 if row.name in left.probed else 0)
    if left.account() is None:
        return []
    chosen = await _choose(session, rows[0], left, limit=limit)
    intents = []
    for name in sorted({choice.account for choice in chosen}):
        keys = [(choice.job.tenant_id, choice.job.id) for choice in chosen if choice.account == name]
        jobs = await leases.claim(
            session,
            Job,
            Job.status == JobStatus.QUEUED,
            or_(Job.deadline_at.is_(None), Job.deadline_at > func.now()),
            tuple_(Job.tenant_id, Job.id).in_(keys),
            owner=owner,
            limit=limit,
            lease_s=lease_s,
            values={
                "status": JobStatus.SUBMITTING,
                "waiting_for": "fal",
                "fal_account": name,
                "attempts": Job.attempts + 1,
                "event_count": Job.event_count + 1,
            },
        )
        if jobs and name in left.probed:
            await accounts.probing(session, name, lease_s=lease_s)
        intents += [_intend(session, job, probe=name in left.probed) for job in jobs]
    await session.flush()
    return intents


async def _choose(session: AsyncSession, turn: FalAccount, left: Room, *, limit: int) -> list[Choice]:
    """The jobs of this round; the next one begins after the tenant that was served last."""
    after = turn.turn
    found = await lanes.lanes(
        session,
        after=after,
        tenants=limit,
        full_tenants=[tenant for tenant, free in left.tenants.items() if free <= 0],
        full_models=[model for model, free in left.models.items() if free <= 0],
    )
    chosen = choose(await lanes.due(session, found.lanes, limit=limit), left, limit=limit, after=after)
    last = chosen[-1].job.tenant_id if chosen else found.until
    if last is not None and last != after:
        turn.turn = last
    return chosen


def _intend(session: AsyncSession, job: Job, *, probe: bool) -> Intent:
    token = new_token(job.tenant_id)
    attempt = Attempt(
        tenant_id=job.tenant_id,
        id=new_id(),
        job_id=job.id,
        number=job.attempts,
        token_digest=token_digest(token),
        status=AttemptStatus.SUBMITTING,
        fal_account=job.fal_account,
    )
    session.add(attempt)
    note(session, job, f"attempt {job.attempts}")
    return Intent(job, attempt, token, probe)


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
