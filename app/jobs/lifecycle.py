"""
The life of a job, as fal's news moves it on: submitted, refused, lost, progressed, reported.

With the sets (`accepting`, `taking`, `submits`, `settling`) the sole writer of a job's status. Each function works
inside the transaction it is given and changes the job, its money and its events together. News that comes second
finds the job moved on and does nothing.
"""

from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import Update, case, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app import leases, money
from app.billing import ledger
from app.billing.prices import settled_seconds
from app.callbacks import outbox
from app.callbacks.events import EventType
from app.fal.messages import Accepted, Outcome, Progress, Refused, Report, job_error
from app.files import addresses
from app.files import queries as files
from app.jobs import callbacks
from app.jobs.states import AttemptStatus, JobStatus, sources
from app.jobs.tables import Attempt, Job, JobEvent
from app.media import queries as media

log = structlog.get_logger()


class JobKey(NamedTuple):
    """Names a job; a tenant's rows are only ever found through the tenant."""

    tenant_id: UUID
    id: UUID


class AttemptKey(NamedTuple):
    """Names one try to hand a job to fal."""

    tenant_id: UUID
    id: UUID


class Applied(StrEnum):
    """What a report from fal changed."""

    SETTLED = "settled"
    TO_BE_READ = "to_be_read"
    ALREADY_ENDED = "already_ended"
    OTHER_REQUEST = "other_request"


async def submitted(
    session: AsyncSession, key: AttemptKey, answer: Accepted, *, expected_s: float, ask_s: float
) -> None:
    """
    fal took the attempt: note its request and URLs, and when to ask about it.

    If it was called refused meanwhile and another attempt is live, the request is only put on record: the job
    follows the live one.
    """
    urls = {"status_url": answer.status_url, "response_url": answer.response_url, "cancel_url": answer.cancel_url}
    attempt = await _heard_of(session, key, answer.request_id, **urls)
    if attempt is None or attempt.status == AttemptStatus.REFUSED:
        return
    await move(
        session,
        JobKey(attempt.tenant_id, attempt.job_id),
        JobStatus.SUBMITTED,
        "fal has it",
        fal_request_id=answer.request_id,
        fal_account=attempt.fal_account,
        queue_position=answer.queue_position,
        waiting_for="fal_queue",
        submitted_at=func.coalesce(Job.submitted_at, func.now()),
        expected_at=func.now() + timedelta(seconds=expected_s),
        # A cancel that came meanwhile is passed on at once.
        due_at=case((Job.cancel_requested_at.is_(None), func.now() + timedelta(seconds=ask_s)), else_=func.now()),
        lease_owner=None,
        lease_token=Job.lease_token + 1,
        tries=0,
    )


async def refused(session: AsyncSession, key: AttemptKey, answer: Refused, *, wait_s: float) -> None:
    """
    It is proven that fal doesn't have the attempt: send the job again in *wait_s* seconds, or end it.

    A job that shall be canceled isn't sent again. Does nothing if fal's own word on the attempt came first.
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
        await end(session, job, JobStatus.FAILED, f"fal refused it ({answer.code})", error=answer.error)
        return
    queued = await move(
        session,
        job,
        JobStatus.QUEUED,
        f"not accepted ({answer.code or answer.error['code']}), will be sent again",
        # What an account is locked for is told where the account is, and not in each of its jobs.
        waiting_for=None if answer.parks else "fal",
        due_at=func.now() + timedelta(seconds=wait_s),
        lease_owner=None,
        lease_token=Job.lease_token + 1,
    )
    if queued is not None and queued.cancel_requested_at is not None:
        await end(session, job, JobStatus.CANCELED, "canceled before fal had it", error=job_error(499, None))


async def lost(session: AsyncSession, key: AttemptKey, why: str) -> None:
    """fal's answer got lost: the hold stays, and nothing is sent again; fal's history is asked, from now on."""
    attempt = await session.scalar(
        _attempt(key)
        .where(Attempt.status == AttemptStatus.SUBMITTING)
        .values(status=AttemptStatus.UNKNOWN, error={"code": "answer_lost", "detail": why}, answered_at=func.now())
        .returning(Attempt)
    )
    if attempt is not None:
        job = JobKey(attempt.tenant_id, attempt.job_id)
        now: dict[str, Any] = {"due_at": func.now(), "lease_owner": None, "tries": 0}
        await move(session, job, JobStatus.SUBMIT_UNKNOWN, f"answer lost: {why}", **now)


async def about_to_send(session: AsyncSession, key: AttemptKey, urls: dict[str, str]) -> bool:
    """
    Write down under which addresses fal will be told the files of an attempt's input.

    False if it may not be sent any more, because its worker was thought dead. Saying the same twice is safe.
    """
    told = await session.scalar(
        _attempt(key)
        .where(Attempt.status == AttemptStatus.SUBMITTING, or_(Attempt.sent_urls.is_(None), Attempt.sent_urls == urls))
        .values(sent_urls=urls)
        .returning(Attempt.id)
    )
    return told is not None


async def interrupted(session: AsyncSession, job: Job, key: AttemptKey) -> None:
    """
    The worker that was submitting the job died, so fal may have it or not.

    Unless its files were still to be made reachable: then it is certain that nothing was sent.
    """
    mine = select(Attempt).where(Attempt.tenant_id == key.tenant_id, Attempt.id == key.id)
    attempt = await session.scalar(mine.with_for_update().execution_options(populate_existing=True))
    if attempt is not None and attempt.sent_urls is None and addresses.ids(job.input):
        reason = job_error(
            None, None, kind="not_sent", text="The worker was interrupted before it sent anything.", retryable=True
        )
        await refused(session, key, Refused(None, "fal", reason), wait_s=leases.backoff_s(attempt.number))
        return
    await lost(session, key, "the worker was interrupted")


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
        "fal_account": attempt.fal_account,
        "queue_position": None,
        "submitted_at": func.coalesce(Job.submitted_at, attempt.created_at),
    }
    if report.outcome is Outcome.SUCCEEDED:
        ended = await _succeed(session, job_key, report, measured_s, at_fal)
    else:
        status = JobStatus(report.outcome)
        ended = await end(session, job_key, status, f"fal reports {report.outcome}", error=report.error, **at_fal)
    return Applied.SETTLED if ended else Applied.ALREADY_ENDED


async def to_be_read(session: AsyncSession, key: AttemptKey, request_id: str) -> Applied:
    """fal says the attempt is over, but not how: the reconciler reads the result, at once."""
    attempt = await _heard_of(session, key, request_id)
    if attempt is None:
        return Applied.OTHER_REQUEST
    # A question that is under way must not put it off again.
    now: dict[str, Any] = {
        "due_at": func.now(),
        "lease_owner": None,
        "lease_token": Job.lease_token + 1,
        "fal_request_id": request_id,
        "fal_account": attempt.fal_account,
    }
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


async def move(session: AsyncSession, key: JobKey, to: JobStatus, why: str, **values: Any) -> Job | None:
    """
    Move a job to *to*, or return None if its present status forbids that.

    The WHERE clause is the lock: when the webhook and the reconciler bring the
    same result, one of them gets the row and the other gets None.
    """
    kind = f"job.{to}"
    moved = await session.execute(
        update(Job)
        .where(Job.tenant_id == key.tenant_id, Job.id == key.id, Job.status.in_(sources(to)))
        .values(status=to, event_count=Job.event_count + 1, **values)
        .returning(Job, func.now(), outbox.listeners(Job, kind))
        .execution_options(populate_existing=True)
    )
    row = moved.one_or_none()
    if row is None:
        return None
    job: Job = row[0]
    _, at, listeners = row
    note(session, job, why)
    await session.flush()
    if listeners:
        await callbacks.tell(session, [callbacks.Told(job, listeners, kind, at, job.event_count)])
    return job


async def end(session: AsyncSession, key: JobKey, to: JobStatus, why: str, **values: Any) -> Job | None:
    """End a job without a video, and give back what is held for it; None if it has ended already."""
    job = await _move_to_end(session, key, to, why, {"charged": Decimal(0), **values})
    if job is not None:
        await ledger.release(session, key.tenant_id, key.id)
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
        if not media.add(session, key.tenant_id, key.id, report.output):
            await _nothing_to_keep(session, key)
    return job


async def _nothing_to_keep(session: AsyncSession, key: JobKey) -> None:
    settled = await session.execute(
        update(Job)
        .where(Job.tenant_id == key.tenant_id, Job.id == key.id)
        .values(safe_at=func.now())
        .returning(Job, outbox.listeners(Job, EventType.SAFE))
        .execution_options(populate_existing=True)
    )
    job, listeners = settled.one()
    if listeners:
        await callbacks.tell(session, [callbacks.safe(job, listeners)])


async def _move_to_end(
    session: AsyncSession, key: JobKey, to: JobStatus, why: str, values: dict[str, Any]
) -> Job | None:
    over: dict[str, Any] = {
        "finished_at": func.now(),
        "due_at": None,
        "lease_owner": None,
        "waiting_for": None,
    }
    job = await move(session, key, to, why, **over, **values)
    if job is not None and addresses.ids(job.input):
        await files.release(session, key.tenant_id, key.id)
    return job


async def _heard_of(session: AsyncSession, key: AttemptKey, request_id: str, **urls: str | None) -> Attempt | None:
    """The attempt, now known to be fal's *request_id*; None if either is known to belong to another."""
    other = aliased(Attempt)
    elsewhere = select(other.id).where(
        other.tenant_id == key.tenant_id, other.fal_request_id == request_id, other.id != key.id
    )
    refused = Attempt.status == AttemptStatus.REFUSED
    attempt: Attempt | None = await session.scalar(
        _attempt(key)
        .where(
            or_(Attempt.fal_request_id.is_(None), Attempt.fal_request_id == request_id),
            ~elsewhere.exists(),
        )
        .values(
            status=case((refused, AttemptStatus.REFUSED), else_=AttemptStatus.SUBMITTED),
            fal_request_id=request_id,
            answered_at=func.coalesce(Attempt.answered_at, func.now()),
            **urls,
        )
        .returning(Attempt)
    )
    if attempt is not None and attempt.status == AttemptStatus.REFUSED:
        return await _taken_after_all(session, key, attempt)
    return attempt


async def _taken_after_all(session: AsyncSession, key: AttemptKey, refused: Attempt) -> Attempt:
    """What was called refused is at fal: live again, unless another attempt was made since."""
    try:
        async with session.begin_nested():
            live = _attempt(key).values(status=AttemptStatus.SUBMITTED).returning(Attempt)
            return (await session.scalars(live)).one()
    except IntegrityError:
        # Asking beforehand would miss an attempt that is being made right now; the index misses none. Only one
        # may be live, so this one stays `refused`. Its request is on record, where `verify` finds both.
        facts = {"job_id": str(refused.job_id), "attempt": refused.number}
        log.error("sent_again_though_accepted", fal_request_id=refused.fal_request_id, **facts)  # noqa: TRY400
        return refused


def _attempt(key: AttemptKey) -> Update:
    return (
        update(Attempt)
        .where(Attempt.tenant_id == key.tenant_id, Attempt.id == key.id)
        .execution_options(populate_existing=True)
    )


def note(session: AsyncSession, job: Job, why: str) -> None:
    """Add what just happened to *job* to its events."""
    session.add(JobEvent(tenant_id=job.tenant_id, job_id=job.id, number=job.event_count, status=job.status, why=why))
