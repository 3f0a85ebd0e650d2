"""
The life of a job, acted out: accept, take, submitted, refused, lost, progressed, reported, expire.

The sole writer of a job's status. Each function works inside the transaction it is given and changes
the job, its money and its events together. News that comes second finds the job moved on and does nothing.
"""

import hashlib
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Update, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app import leases, money, wakeup
from app.billing import ledger
from app.billing.prices import Quote, settled_seconds
from app.db import new_id
from app.errors import AppError
from app.fal.messages import Accepted, Outcome, Progress, Refused, Report
from app.jobs.states import AttemptStatus, JobStatus, Priority, sources
from app.jobs.tables import Attempt, Job, JobEvent
from app.tenants.auth import Caller

EXPIRY_ERROR: Final = {
    "code": "deadline_passed",
    "title": "The deadline passed before the job was sent to fal.",
    "detail": None,
    "retryable": True,
}


class IdempotencyConflict(AppError):
    """This Idempotency-Key was used for a different order; send a new key with a new order."""

    status, code = 409, "idempotency_conflict"


class JobKey(NamedTuple):
    """Names a job; a tenant's rows are only ever found through the tenant."""

    tenant_id: UUID
    id: UUID


class AttemptKey(NamedTuple):
    """Names one try to hand a job to fal."""

    tenant_id: UUID
    id: UUID


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
    idempotency_key: str | None = None
    digest: bytes = b""


class Intent(NamedTuple):
    """A job about to be sent, its attempt, and the token of the attempt's own webhook URL."""

    job: Job
    attempt: Attempt
    token: str


class Applied(StrEnum):
    """What a report from fal changed."""

    SETTLED = "settled"
    TO_BE_READ = "to_be_read"
    ALREADY_ENDED = "already_ended"
    OTHER_REQUEST = "other_request"


async def accept(session: AsyncSession, caller: Caller, order: Order, quote: Quote) -> tuple[Job, bool]:
    """
    The job for *order* with its price held, and whether it is new.

    The same idempotency key brings back the same job; with another order it raises
    IdempotencyConflict. Raises InsufficientFunds if the price can't be held.
    """
    job = await session.scalar(
        insert(Job)
        .values(
            tenant_id=caller.tenant_id,
            id=new_id(),
            api_key_id=caller.key_id,
            model=order.model,
            input=order.input,
            labels=order.metadata,
            end_user=order.end_user,
            priority=order.priority,
            idempotency_key=order.idempotency_key,
            order_digest=order.digest,
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
        # A concurrent order with the same key waits here until the first has committed.
        .on_conflict_do_nothing(index_elements=[Job.tenant_id, Job.idempotency_key])
        .returning(Job)
    )
    if job is None:
        return await _replayed(session, caller.tenant_id, order), False
    await ledger.hold(session, job.tenant_id, job.id, quote.amount)
    _note(session, job, "accepted")
    await wakeup.announce(session)
    return job, True


async def _replayed(session: AsyncSession, tenant_id: UUID, order: Order) -> Job:
    job = (
        await session.scalars(
            select(Job).where(Job.tenant_id == tenant_id, Job.idempotency_key == order.idempotency_key)
        )
    ).one()
    if not secrets.compare_digest(job.order_digest, order.digest):
        raise IdempotencyConflict
    return job


async def take(session: AsyncSession, *, owner: str, limit: int, lease_s: float) -> list[Intent]:
    """
    Up to *limit* due jobs, each with an attempt written down before anything is sent.

    Until fal's answer is recorded such a job is `submitting`; if the worker dies, the lease runs out and
    the reconciler finds it: then nobody knows whether fal has it.
    """
    jobs = await leases.claim(
        session,
        Job,
        Job.status == JobStatus.QUEUED,
        or_(Job.deadline_at.is_(None), Job.deadline_at > func.now()),
        owner=owner,
        limit=limit,
        lease_s=lease_s,
        values={
            "status": JobStatus.SUBMITTING,
            "waiting_for": "fal",
            "attempts": Job.attempts + 1,
            "event_count": Job.event_count + 1,
        },
    )
    intents = []
    for job in jobs:
        token = new_token(job.tenant_id)
        attempt = Attempt(
            tenant_id=job.tenant_id,
            id=new_id(),
            job_id=job.id,
            number=job.attempts,
            token_digest=token_digest(token),
            status=AttemptStatus.SUBMITTING,
        )
        session.add(attempt)
        _note(session, job, f"attempt {job.attempts}")
        intents.append(Intent(job, attempt, token))
    await session.flush()
    return intents


def new_token(tenant_id: UUID) -> str:
    """An unguessable name for an attempt's webhook URL; it carries the tenant, so that one look-up finds its row."""
    return urlsafe_b64encode(tenant_id.bytes + secrets.token_bytes(32)).decode()


def tenant_of(token: str) -> UUID | None:
    """The tenant in an attempt's token, or None if it isn't one of ours."""
    try:
        raw = urlsafe_b64decode(token.encode("ascii", "replace"))
    except ValueError:
        return None
    return UUID(bytes=raw[:16]) if len(raw) == 48 else None


def token_digest(token: str) -> bytes:
    """What is kept of an attempt's token."""
    return hashlib.sha256(token.encode()).digest()


async def submitted(
    session: AsyncSession, key: AttemptKey, answer: Accepted, *, expected_s: float, ask_s: float
) -> None:
    """fal took the attempt: note its request and URLs, and when to ask about it."""
    attempt = await session.scalar(
        _attempt(key)
        .where(or_(Attempt.fal_request_id.is_(None), Attempt.fal_request_id == answer.request_id))
        .values(
            status=AttemptStatus.SUBMITTED,
            fal_request_id=answer.request_id,
            status_url=answer.status_url,
            response_url=answer.response_url,
            cancel_url=answer.cancel_url,
            answered_at=func.now(),
        )
        .returning(Attempt)
    )
    if attempt is None:
        return
    await move(
        session,
        JobKey(attempt.tenant_id, attempt.job_id),
        JobStatus.SUBMITTED,
        "fal has it",
        fal_request_id=answer.request_id,
        queue_position=answer.queue_position,
        waiting_for="fal_queue",
        submitted_at=func.coalesce(Job.submitted_at, func.now()),
        expected_at=func.now() + timedelta(seconds=expected_s),
        due_at=func.now() + timedelta(seconds=ask_s),
        lease_owner=None,
        tries=0,
    )


async def refused(session: AsyncSession, key: AttemptKey, answer: Refused, *, wait_s: float) -> None:
    """
    It is proven that fal doesn't have the attempt: send the job again in *wait_s* seconds, or fail it.

    Does nothing if fal's own word on the attempt came first.
    """
    attempt = await session.scalar(
        _attempt(key)
        .where(Attempt.status.in_([AttemptStatus.SUBMITTING, AttemptStatus.UNKNOWN]))
        .values(status=AttemptStatus.REFUSED, error=answer.error, answered_at=func.now())
        .returning(Attempt)
    )
    if attempt is None:
        return
    job = JobKey(attempt.tenant_id, attempt.job_id)
    if answer.final:
        await _end(session, job, JobStatus.FAILED, f"fal refused it ({answer.code})", error=answer.error)
        return
    await move(
        session,
        job,
        JobStatus.QUEUED,
        f"not accepted ({answer.code or 'nothing was sent'}), will be sent again",
        waiting_for=answer.why,
        due_at=func.now() + timedelta(seconds=wait_s),
        lease_owner=None,
    )


async def lost(session: AsyncSession, key: AttemptKey, why: str) -> None:
    """fal's answer got lost: the hold stays, and nothing is sent again until fal's own word settles it."""
    attempt = await session.scalar(
        _attempt(key)
        .where(Attempt.status == AttemptStatus.SUBMITTING)
        .values(status=AttemptStatus.UNKNOWN, error={"code": "answer_lost", "detail": why}, answered_at=func.now())
        .returning(Attempt)
    )
    if attempt is not None:
        job = JobKey(attempt.tenant_id, attempt.job_id)
        await move(session, job, JobStatus.SUBMIT_UNKNOWN, f"answer lost: {why}", due_at=None, lease_owner=None)


async def progressed(session: AsyncSession, job: Job, progress: Progress, *, ask_s: float) -> None:
    """Where fal says the job stands, and when to ask again; fenced by the lease that *job* was taken with."""
    waiting_for = "fal" if progress.running else "fal_queue"
    kept = await leases.again(session, job, ask_s, queue_position=progress.queue_position, waiting_for=waiting_for)
    key = JobKey(job.tenant_id, job.id)
    if kept and progress.running and job.status != JobStatus.IN_PROGRESS:
        await move(
            session,
            key,
            JobStatus.IN_PROGRESS,
            "fal runs it",
            started_at=func.coalesce(Job.started_at, func.now()),
        )
    elif kept and not progress.running and job.status == JobStatus.IN_PROGRESS:
        await move(session, key, JobStatus.SUBMITTED, "fal put it back into its queue")


async def reported(session: AsyncSession, key: AttemptKey, report: Report, measured_s: Decimal | None) -> Applied:
    """
    fal's verdict on an attempt: ends the job and settles its money, once.

    *measured_s* is the length of the delivered video, where the price depends on it. The verdict may
    come before the submit's answer, for an attempt whose answer got lost, or long after the job ended.
    """
    attempt = await _heard_of(session, key, report.request_id)
    if attempt is None:
        return Applied.OTHER_REQUEST
    job_key = JobKey(attempt.tenant_id, attempt.job_id)
    at_fal = {
        "fal_request_id": report.request_id,
        "queue_position": None,
        "submitted_at": func.coalesce(Job.submitted_at, attempt.created_at),
    }
    if report.outcome is Outcome.SUCCEEDED:
        ended = await _succeed(session, job_key, report, measured_s, at_fal)
    else:
        status = JobStatus(report.outcome)
        ended = await _end(session, job_key, status, f"fal reports {report.outcome}", error=report.error, **at_fal)
    return Applied.SETTLED if ended else Applied.ALREADY_ENDED


async def to_be_read(session: AsyncSession, key: AttemptKey, request_id: str | None) -> Applied:
    """fal says the attempt is over, but not how: the reconciler reads the result, at once."""
    attempt = await _heard_of(session, key, request_id)
    if attempt is None:
        return Applied.OTHER_REQUEST
    now: dict[str, Any] = {"due_at": func.now(), "lease_owner": None, "fal_request_id": request_id}
    job_key = JobKey(attempt.tenant_id, attempt.job_id)
    submitted_at = func.coalesce(Job.submitted_at, attempt.created_at)
    if await move(session, job_key, JobStatus.SUBMITTED, "fal ended it", submitted_at=submitted_at, **now):
        return Applied.TO_BE_READ
    due = await session.execute(
        update(Job)
        .where(Job.tenant_id == job_key.tenant_id, Job.id == job_key.id, Job.finished_at.is_(None))
        .values(now)
        .execution_options(synchronize_session=False)
    )
    return Applied.TO_BE_READ if due.rowcount else Applied.ALREADY_ENDED  # type: ignore[attr-defined]


async def expire(session: AsyncSession, *, limit: int) -> int:
    """End up to *limit* jobs whose deadline passed before anything was sent; free. Returns how many."""
    overdue = (
        select(Job.tenant_id, Job.id)
        .where(Job.status == JobStatus.QUEUED, Job.deadline_at <= func.now())
        .order_by(Job.tenant_id, Job.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    keys = [JobKey(*row) for row in (await session.execute(overdue)).all()]
    for key in keys:
        await _end(session, key, JobStatus.EXPIRED, "deadline passed before it was sent", error=dict(EXPIRY_ERROR))
    return len(keys)


async def move(session: AsyncSession, key: JobKey, to: JobStatus, why: str, **values: Any) -> Job | None:
    """
    Move a job to *to*, or return None if its present status forbids that.

    The WHERE clause is the lock: when the webhook and the reconciler bring the
    same result, one of them gets the row and the other gets None.
    """
    job = await session.scalar(
        update(Job)
        .where(Job.tenant_id == key.tenant_id, Job.id == key.id, Job.status.in_(sources(to)))
        .values(status=to, event_count=Job.event_count + 1, **values)
        .returning(Job)
        .execution_options(populate_existing=True)
    )
    if job is not None:
        _note(session, job, why)
        await session.flush()
    return job


async def _succeed(
    session: AsyncSession, key: JobKey, report: Report, measured_s: Decimal | None, values: dict[str, Any]
) -> Job | None:
    # A job keeps the price it was accepted at, so reading it before the guarded UPDATE races with nothing.
    priced = (await session.scalars(select(Job).where(Job.tenant_id == key.tenant_id, Job.id == key.id))).one()
    seconds = priced.seconds
    if priced.measured:
        seconds = settled_seconds(seconds, measured_s, least=priced.min_seconds, step=priced.step_seconds)
    price = money.Price(priced.price_per_second, priced.base_amount, priced.base_seconds)
    amount = min(money.video_cost(seconds, price), priced.quoted)
    ending = {"output": report.output, "charged": amount, "charged_seconds": seconds, **values}
    job = await _move_to_end(session, key, JobStatus.SUCCEEDED, "fal reports succeeded", ending)
    if job is not None:
        await ledger.charge(session, key.tenant_id, key.id, amount)
    return job


async def _end(session: AsyncSession, key: JobKey, to: JobStatus, why: str, **values: Any) -> Job | None:
    job = await _move_to_end(session, key, to, why, {"charged": Decimal(0), **values})
    if job is not None:
        await ledger.release(session, key.tenant_id, key.id)
    return job


async def _move_to_end(
    session: AsyncSession, key: JobKey, to: JobStatus, why: str, values: dict[str, Any]
) -> Job | None:
    over: dict[str, Any] = {
        "finished_at": func.now(),
        "due_at": None,
        "lease_owner": None,
        "waiting_for": None,
    }
    return await move(session, key, to, why, **over, **values)


async def _heard_of(session: AsyncSession, key: AttemptKey, request_id: str | None) -> Attempt | None:
    """The attempt, now known to be fal's *request_id*; None if it is known to be another one."""
    attempt = await session.scalar(
        _attempt(key)
        .where(or_(Attempt.fal_request_id.is_(None), Attempt.fal_request_id == request_id))
        .values(fal_request_id=request_id, answered_at=func.coalesce(Attempt.answered_at, func.now()))
        .returning(Attempt)
    )
    if attempt is not None and attempt.status in {AttemptStatus.SUBMITTING, AttemptStatus.UNKNOWN}:
        await session.execute(_attempt(key).values(status=AttemptStatus.SUBMITTED))
    return attempt


def _attempt(key: AttemptKey) -> Update:
    return (
        update(Attempt)
        .where(Attempt.tenant_id == key.tenant_id, Attempt.id == key.id)
        .execution_options(populate_existing=True)
    )


def _note(session: AsyncSession, job: Job, why: str) -> None:
    session.add(JobEvent(tenant_id=job.tenant_id, job_id=job.id, number=job.event_count, status=job.status, why=why))
