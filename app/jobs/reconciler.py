"""
We ask fal: about jobs whose webhook hasn't come, and when no webhook can come.

Reads the status, then the result, and ends in the same lifecycle functions as the receiver. A question
that gets no answer changes nothing and is asked again later.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app import clock, leases
from app.db import Database
from app.fal.client import FalClient, Unanswered
from app.fal.messages import Outcome, Report, Unreadable, job_error
from app.jobs import lifecycle, queries
from app.jobs.lifecycle import AttemptKey
from app.jobs.schedule import ask_s
from app.jobs.states import JobStatus
from app.jobs.tables import Attempt, Job
from app.media.measure import Measure

log = structlog.get_logger()

AWAITED = (JobStatus.SUBMITTING, JobStatus.SUBMITTED, JobStatus.IN_PROGRESS)


@dataclass(frozen=True, slots=True)
class Reconciler:
    """Asks fal about overdue jobs, up to *at_once* at a time."""

    db: Database
    fal: FalClient
    measure: Measure
    owner: str
    at_once: int
    lease_s: float
    progress_s: float

    async def run_once(self) -> int:
        """Ask about what is due; how many jobs were handled."""
        jobs, attempts = await self.db.run(self._take)
        outcomes = await asyncio.gather(*(self._ask(job, attempts.get(job.id)) for job in jobs), return_exceptions=True)
        for error in outcomes:
            if isinstance(error, BaseException):
                log.error("question_not_recorded", why=type(error).__name__)
        return len(jobs)

    async def _take(self, session: AsyncSession) -> tuple[Sequence[Job], dict[UUID, Attempt]]:
        jobs = await leases.claim(
            session, Job, Job.status.in_(AWAITED), owner=self.owner, limit=self.at_once, lease_s=self.lease_s
        )
        return jobs, await queries.live_attempts(session, jobs)

    async def _ask(self, job: Job, attempt: Attempt | None) -> None:
        if attempt is None:
            return
        key = AttemptKey(job.tenant_id, attempt.id)
        if attempt.fal_request_id is None:
            # The worker that was submitting it died, so fal may have it or not.
            log.error("submit_interrupted", job_id=str(job.id), attempt=attempt.number)
            await self.db.run(partial(lifecycle.lost, key=key, why="the worker was interrupted"))
            return
        wait_s = self._wait_s(job)
        try:
            progress = await self.fal.status(job.model, attempt.fal_request_id, attempt.status_url)
            if progress is not None:
                await self.db.run(partial(lifecycle.progressed, job=job, progress=progress, ask_s=wait_s))
                return
            report = await self.fal.result(job.model, attempt.fal_request_id, attempt.response_url)
        except Unanswered as error:
            log.warning("fal_unanswered", job_id=str(job.id), why=str(error))
            await self.db.run(partial(leases.again, row=job, wait_s=wait_s))
            return
        await self._report(job, key, report)

    async def _report(self, job: Job, key: AttemptKey, report: Report | Unreadable) -> None:
        if isinstance(report, Unreadable):
            error = job_error(None, None, kind="output_unreadable")
            report = Report(report.request_id, Outcome.FAILED, error=error)
        seconds = await self.measure.seconds(report.output) if job.measured else None
        applied = await self.db.run(partial(lifecycle.reported, key=key, report=report, measured_s=seconds))
        log.info("job_reported", job_id=str(job.id), outcome=report.outcome, applied=applied, by="reconciler")

    def _wait_s(self, job: Job) -> float:
        left_s = (job.expected_at - clock.now()).total_seconds() if job.expected_at else None
        return ask_s(job.tries, progress_s=self.progress_s, left_s=left_s)
