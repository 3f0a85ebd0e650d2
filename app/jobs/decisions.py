"""
What people decide about a job: to cancel it, or what became of a submit whose answer got lost.

A cancel settles nothing that fal may have: it is noted here, passed on by the reconciler, and the job ends
as fal says. An operator's word stands where fal's can't be had; if it was wrong, fal's still counts.
"""

from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import AppError
from app.fal.messages import Accepted, CancelAnswer, Refused, job_error
from app.jobs import lifecycle, queries
from app.jobs.lifecycle import AttemptKey, JobKey, end, note
from app.jobs.states import ENDINGS, AttemptStatus, JobStatus
from app.jobs.tables import Attempt, Job


class AlreadyFinished(AppError):
    """The job has ended; there is nothing left to cancel."""

    status, code = 409, "already_finished"


class Unresolvable(Exception):
    """An operator's decision that can't stand; the text says why."""


async def cancel(session: AsyncSession, key: JobKey) -> Job | None:
    """
    The job, `canceled` if fal never had it, else with the wish noted for fal to hear; None if there is none.

    Asking again changes nothing. Raises AlreadyFinished if it ended otherwise.
    """
    job = await session.scalar(select(Job).where(Job.tenant_id == key.tenant_id, Job.id == key.id).with_for_update())
    if job is None or job.status == JobStatus.CANCELED:
        return job
    if job.status in ENDINGS:
        raise AlreadyFinished(f"It is {job.status}.")
    if job.status == JobStatus.QUEUED:
        error = job_error(499, None)
        wish = {"cancel_requested_at": func.now()}
        return await end(session, key, JobStatus.CANCELED, "canceled before fal had it", error=error, **wish)
    if job.cancel_requested_at is not None:
        return job
    # What is being submitted right now stays with its dispatcher, whose news makes it due.
    at_once: dict[str, Any] = {"due_at": func.now(), "lease_token": Job.lease_token + 1, "tries": 0}
    due = {} if job.status == JobStatus.SUBMITTING else at_once
    return await _remark(session, key, "cancel requested", cancel_requested_at=func.now(), **due)


async def cancel_answered(session: AsyncSession, key: AttemptKey, answer: CancelAnswer) -> None:
    """fal heard of the cancel; it isn't asked again, and the job waits for fal's verdict."""
    attempt = await session.scalar(
        update(Attempt)
        .where(Attempt.tenant_id == key.tenant_id, Attempt.id == key.id, Attempt.cancel_answer.is_(None))
        .values(cancel_answer=answer)
        .returning(Attempt)
        .execution_options(populate_existing=True)
    )
    if attempt is not None:
        await _remark(session, JobKey(attempt.tenant_id, attempt.job_id), f"fal answers the cancel with {answer}")


async def resolve_accepted(session: AsyncSession, job: Job, request_id: str, reason: str | None) -> None:
    """An operator found that fal has the job, as *request_id*: fal is asked about that. Raises Unresolvable."""
    key = await _unknown(session, job)
    belongs_elsewhere = Unresolvable(f"Request {request_id} belongs to another attempt.")
    if await queries.taken(session, request_id):
        raise belongs_elsewhere
    await _remark(session, JobKey(job.tenant_id, job.id), _said(f"fal has it as {request_id}", reason))
    expected_s = await queries.typical_s(session, job.model)
    try:
        await lifecycle.submitted(session, key, Accepted(request_id), expected_s=expected_s, ask_s=0)
    except IntegrityError:
        # Its own attempt heard of it in this very moment.
        raise belongs_elsewhere from None


async def resolve_not_accepted(session: AsyncSession, job: Job, reason: str) -> None:
    """An operator found that fal doesn't have the job: it is sent again. Raises Unresolvable."""
    key = await _unknown(session, job)
    await _remark(session, JobKey(job.tenant_id, job.id), _said("fal doesn't have it", reason))
    error = {"code": "operator", "title": "An operator found that fal doesn't have it.", "detail": reason}
    await lifecycle.refused(session, key, Refused(None, "fal", {**error, "retryable": True}), wait_s=0)


async def _unknown(session: AsyncSession, job: Job) -> AttemptKey:
    """The job's attempt whose answer got lost, locked until the transaction ends. Raises Unresolvable."""
    lost = select(Attempt.id).where(
        Attempt.tenant_id == job.tenant_id, Attempt.job_id == job.id, Attempt.status == AttemptStatus.UNKNOWN
    )
    attempt_id = await session.scalar(lost.with_for_update())
    if attempt_id is None:
        raise Unresolvable(f"Job {job.id} is not {JobStatus.SUBMIT_UNKNOWN}; only such a job needs a decision.")
    return AttemptKey(job.tenant_id, attempt_id)


def _said(what: str, reason: str | None) -> str:
    return f"operator: {what}: {reason}" if reason else f"operator: {what}"


async def _remark(session: AsyncSession, key: JobKey, why: str, **values: Any) -> Job | None:
    """Add to the events of an unfinished job without moving it."""
    job = await session.scalar(
        update(Job)
        .where(Job.tenant_id == key.tenant_id, Job.id == key.id, Job.finished_at.is_(None))
        .values(event_count=Job.event_count + 1, **values)
        .returning(Job)
        .execution_options(populate_existing=True)
    )
    if job is not None:
        note(session, job, why)
        await session.flush()
    return job
