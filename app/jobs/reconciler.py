"""
We ask fal: about jobs whose webhook hasn't come, and about submits whose answer got lost; we pass cancels on.

Reads the status, then the result, and ends in the same lifecycle functions as the receiver. A question
that gets no answer changes nothing and is asked again later.
"""

from collections import defaultdict
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app import clock, leases
from app.db import Database
from app.fal.accounts import Accounts
from app.fal.client import FalClient, Unanswered
from app.fal.messages import Sent
from app.jobs import decisions, history, lifecycle, queries
from app.jobs.history import Lost
from app.jobs.lifecycle import AttemptKey
from app.jobs.schedule import ask_s
from app.jobs.states import JobStatus
from app.jobs.tables import AT_FAL, Attempt, Job
from app.lines import Ask
from app.media.measure import Measure, Unmeasured

log = structlog.get_logger()

AWAITED: Final = (JobStatus.SUBMITTING, JobStatus.SUBMIT_UNKNOWN, JobStatus.SUBMITTED, JobStatus.IN_PROGRESS)
HISTORY_LONGEST_S: Final = 3600.0
"""The longest pause between two looks into fal's history for one lost submit."""
HISTORY_BEAT: Final = timedelta(hours=1)
"""Submits lost within it are looked for together: one reading of fal's history tells of all of them."""
LISTED_LATE: Final = timedelta(hours=1)
"""It isn't known whether fal's history goes by when a request was sent or when it ended, so ask for some more."""


# The order keeps Postgres from looking through all jobs where it expects many to be due.
DUE: Final = f"SELECT FROM jobs WHERE {AT_FAL} AND due_at <= now() ORDER BY due_at LIMIT 1"


async def anything_due(ask: Ask) -> bool:
    """Whether fal is to be asked about any job."""
    return bool(await ask(DUE, {}))


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
        # It is woken by whatever happens, and mostly for nothing: that shouldn't cost a claim.
        if not await self.db.run_one(anything_due):
            return []
        jobs, attempts = await self.db.run(partial(self._due, limit=limit))
        questions: list[Coroutine[Any, Any, None]] = []
        lost: defaultdict[tuple[str, str, int], list[Lost]] = defaultdict(list)
        for job in jobs:
            attempt = attempts.get(job.id)
            if attempt is None:
                log.error("job_without_attempt", job_id=str(job.id), status=job.status)
            elif attempt.fal_request_id is not None:
                questions.append(self._ask(job, attempt, attempt.fal_request_id))
            elif job.status == JobStatus.SUBMITTING:
                questions.append(self._interrupted(job, attempt))
            else:
                beat = attempt.created_at.timestamp() // HISTORY_BEAT.total_seconds()
                lost[attempt.fal_account, job.model, int(beat)].append(Lost(job, attempt))
        return questions + [self._look_up(together) for together in lost.values()]

    async def _due(self, session: AsyncSession, limit: int) -> tuple[Sequence[Job], dict[UUID, Attempt]]:
        awaited = Job.status.in_(AWAITED)
        jobs = await leases.claim(session, Job, awaited, owner=self.owner, limit=limit, lease_s=self.lease_s)
        return jobs, await queries.attempts_at_fal(session, jobs)

    async def _interrupted(self, job: Job, attempt: Attempt) -> None:
        """Its worker died, or is as slow as if it had."""
        log.error("submit_interrupted", job_id=str(job.id), attempt=attempt.number)
        key = AttemptKey(job.tenant_id, attempt.id)
        await self.db.run(partial(lifecycle.interrupted, job=job, key=key))

    async def _ask(self, job: Job, attempt: Attempt, request_id: str) -> None:
        key = AttemptKey(job.tenant_id, attempt.id)
        wait_s = self._wait_s(job)
        try:
            fal = self.accounts.get(attempt.fal_account).queue
            if job.cancel_requested_at is not None and attempt.cancel_answer is None:
                await self._cancel(fal, job, key, request_id, attempt.cancel_url)
            progress = await fal.status(job.model, request_id, attempt.status_url)
            if progress is not None:
                await self.db.run(partial(lifecycle.progressed, job=job, progress=progress, ask_s=wait_s))
                return
            report = await fal.result(job.model, request_id, attempt.response_url)
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

    async def _look_up(self, together: Sequence[Lost]) -> None:
        """
        Look for lost submits in fal's history; what isn't there, or not for sure, is looked for again later.

        *together* are of one account and model, and of about one time.
        """
        account, model = together[0].attempt.fal_account, together[0].job.model
        start, end = min(lost.start for lost in together), max(lost.end for lost in together) + LISTED_LATE
        try:
            platform = self.accounts.get(account).platform
            sent = await platform.requests(model, start=start, end=end, keep=history.sought(together))
        except Unanswered as error:
            log.warning("history_unanswered", fal_account=account, model=model, lost=len(together), why=str(error))
            sent = []
        for lost in together:
            try:
                await self._tell(lost, sent)
            except SQLAlchemyError as error:
                # Its lease runs out, and it is looked for again; the others aren't held up by it. Messages quote rows.
                log.error("submit_not_looked_for", job_id=str(lost.job.id), why=type(error).__name__)  # noqa: TRY400

    async def _tell(self, lost: Lost, sent: Sequence[Sent]) -> None:
        job, attempt = lost.job, lost.attempt
        request_id = await self.db.run(partial(history.recognise, lost=lost, sent=sent)) if sent else None
        if request_id is not None:
            log.info("submit_recognised", job_id=str(job.id), attempt=attempt.number, fal_request_id=request_id)
            return
        # By its age, not by how often it was taken: a worker that was killed with it in hand asked nothing.
        wait_s = min(max(self.progress_s, lost.age_s / 2), HISTORY_LONGEST_S)
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
