"""
We ask fal: about jobs whose webhook hasn't come, and about submits whose answer got lost; we pass cancels on.

Reads the status, then the result, and ends in the same lifecycle functions as the receiver. A question
that gets no answer changes nothing and is asked again later.
"""

from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app import clock, leases
from app.db import Database
from app.fal.accounts import Accounts
from app.fal.client import FalClient, Unanswered
from app.jobs import decisions, history, lifecycle, queries
from app.jobs.lifecycle import AttemptKey
from app.jobs.schedule import ask_s
from app.jobs.states import JobStatus
from app.jobs.tables import Attempt, Job
from app.media.measure import Measure, Unmeasured

log = structlog.get_logger()

AWAITED: Final = (JobStatus.SUBMITTING, JobStatus.SUBMIT_UNKNOWN, JobStatus.SUBMITTED, JobStatus.IN_PROGRESS)
HISTORY_LONGEST_S: Final = 3600.0
"""The longest pause between two looks into fal's history for one lost submit."""
LISTED_LATE: Final = timedelta(hours=1)
"""It isn't known whether fal's history goes by when a request was sent or when it ended, so ask for some more."""


@dataclass(frozen=True, slots=True)
class Reconciler:
    """Asks fal about overdue jobs, up to *at_once* at a time."""

    db: Database
    accounts: Accounts
    measure: Measure
    owner: str
    at_once: int
    lease_s: float
    progress_s: float

    async def take(self, limit: int) -> list[Coroutine[Any, Any, None]]:
        """The questions about up to *limit* due jobs, to be asked side by side."""
        jobs, attempts = await self.db.run(partial(self._due, limit=limit))
        return [self._ask(job, attempts.get(job.id)) for job in jobs]

    async def _due(self, session: AsyncSession, limit: int) -> tuple[Sequence[Job], dict[UUID, Attempt]]:
        awaited = Job.status.in_(AWAITED)
        jobs = await leases.claim(session, Job, awaited, owner=self.owner, limit=limit, lease_s=self.lease_s)
        return jobs, await queries.attempts_at_fal(session, jobs)

    async def _ask(self, job: Job, attempt: Attempt | None) -> None:
        if attempt is None:
            log.error("job_without_attempt", job_id=str(job.id), status=job.status)
            return
        key = AttemptKey(job.tenant_id, attempt.id)
        if attempt.fal_request_id is None and job.status == JobStatus.SUBMITTING:
            log.error("submit_interrupted", job_id=str(job.id), attempt=attempt.number)
            await self.db.run(partial(lifecycle.interrupted, job=job, key=key))
            return
        if attempt.fal_request_id is None:
            await self._look_up(job, attempt)
            return
        wait_s = self._wait_s(job)
        try:
            fal = self.accounts.get(attempt.fal_account).queue
            if job.cancel_requested_at is not None and attempt.cancel_answer is None:
                await self._cancel(fal, job, key, attempt.fal_request_id, attempt.cancel_url)
            progress = await fal.status(job.model, attempt.fal_request_id, attempt.status_url)
            if progress is not None:
                await self.db.run(partial(lifecycle.progressed, job=job, progress=progress, ask_s=wait_s))
                return
            report = await fal.result(job.model, attempt.fal_request_id, attempt.response_url)
            # A video that can't be read just now has no length yet; its price waits rather than being guessed.
            seconds = await self.measure.seconds(report.output) if job.measured else None
        except (Unanswered, Unmeasured) as error:
            # Nothing is decided however long that goes on, be it a 404 for ever; but the job says so.
            waiting_for = "video" if isinstance(error, Unmeasured) else "fal_answer"
            log.warning("fal_unanswered", job_id=str(job.id), why=str(error) or type(error).__name__)
            await self.db.run(partial(leases.again, row=job, wait_s=wait_s, waiting_for=waiting_for))
            return
        applied = await self.db.run(partial(lifecycle.reported, key=key, report=report, measured_s=seconds))
        log.info("job_reported", job_id=str(job.id), outcome=report.outcome, applied=applied, by="reconciler")

    async def _look_up(self, job: Job, attempt: Attempt) -> None:
        """Look for a lost submit in fal's history; what isn't there, or not for sure, is looked for again later."""
        start, end = history.window(attempt)
        request_id = None
        try:
            platform = self.accounts.get(attempt.fal_account).platform
            sent = await platform.requests(job.model, start=start, end=end + LISTED_LATE)
            request_id = await self.db.run(partial(history.recognise, job=job, attempt=attempt, sent=sent))
        except Unanswered as error:
            log.warning("fal_unanswered", job_id=str(job.id), why=str(error))
        if request_id is not None:
            log.info("submit_recognised", job_id=str(job.id), attempt=attempt.number, fal_request_id=request_id)
            return
        wait_s = leases.backoff_s(job.tries, first_s=self.progress_s, longest_s=HISTORY_LONGEST_S)
        await self.db.run(partial(leases.again, row=job, wait_s=wait_s))

    async def _cancel(self, fal: FalClient, job: Job, key: AttemptKey, request_id: str, url: str | None) -> None:
        """Pass a cancel on; unanswered, it is tried again with the next question."""
        try:
            answer = await fal.cancel(job.model, request_id, url)
        except Unanswered as error:
            log.warning("cancel_unanswered", job_id=str(job.id), why=str(error))
            return
        log.info("cancel_passed_on", job_id=str(job.id), answer=answer)
        await self.db.run(partial(decisions.cancel_answered, key=key, answer=answer))

    def _wait_s(self, job: Job) -> float:
        left_s = (job.expected_at - clock.now()).total_seconds() if job.expected_at else None
        return ask_s(job.tries, progress_s=self.progress_s, left_s=left_s)
