"""
We tell fal: take queued jobs and submit them.

Two short transactions around one call. The first writes down that we are about to send; the call is
made once, with no transaction open; the second writes down what came back. Dying between them leaves a
job that says so, and it is never sent again unless an operator decides that fal doesn't have it.
"""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app import clock, leases
from app.db import Database
from app.fal.client import FalClient
from app.fal.messages import Accepted, Lost, Refused
from app.jobs import intake, lifecycle, queries
from app.jobs.intake import Intent
from app.jobs.lifecycle import AttemptKey
from app.jobs.schedule import ask_s
from app.jobs.tables import Job

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Submits queued jobs, up to *at_once* at a time."""

    db: Database
    fal: FalClient
    owner: str
    at_once: int
    lease_s: float
    progress_s: float
    priority: str = "normal"
    public_url: str | None = None

    async def take(self, limit: int) -> list[Coroutine[Any, Any, None]]:
        """The submits of up to *limit* due jobs, to be run side by side."""
        try:
            await self.db.run(partial(intake.expire, limit=100))
        except SQLAlchemyError as error:
            # A job that can't be expired must not keep the others from being sent.
            log.error("jobs_not_expired", why=type(error).__name__)  # noqa: TRY400 - messages quote rows
        take = partial(intake.take, owner=self.owner, limit=limit, lease_s=self.lease_s)
        return [self._submit(intent) for intent in await self.db.run(take)]

    async def _submit(self, intent: Intent) -> None:
        job, attempt = intent.job, intent.attempt
        key = AttemptKey(job.tenant_id, attempt.id)
        answer = await self.fal.submit(
            job.model,
            job.input,
            webhook_url=f"{self.public_url}/webhooks/fal/{intent.token}" if self.public_url else None,
            priority=self.priority,
            start_timeout_s=_left_s(job.deadline_at.timestamp()) if job.deadline_at else None,
        )
        facts = {"job_id": str(job.id), "attempt": attempt.number}
        match answer:
            case Accepted():
                log.info("job_submitted", fal_request_id=answer.request_id, **facts)
                await self._record(partial(self._note_accepted, job=job, key=key, answer=answer))
            case Refused():
                log.warning("submit_refused", status_code=answer.code, why=answer.error["code"], **facts)
                wait_s = answer.retry_after_s or leases.backoff_s(job.attempts)
                await self._record(partial(lifecycle.refused, key=key, answer=answer, wait_s=wait_s))
            case Lost():
                log.error("submit_answer_lost", why=answer.why, **facts)
                await self._record(partial(lifecycle.lost, key=key, why=answer.why))

    async def _record(self, news: Callable[[AsyncSession], Awaitable[None]]) -> None:
        """Write down what fal said, even if Postgres is away just now: nobody else knows it."""
        await self.db.insist(news, for_s=self.lease_s)

    async def _note_accepted(self, session: AsyncSession, job: Job, key: AttemptKey, answer: Accepted) -> None:
        expected_s = await queries.typical_s(session, job.model)
        wait_s = ask_s(0, progress_s=self.progress_s, left_s=expected_s)
        await lifecycle.submitted(session, key, answer, expected_s=expected_s, ask_s=wait_s)


def _left_s(deadline: float) -> float:
    # fal takes nothing below 0.1 s, and its own clients nothing below 1 s.
    return max(1.0, deadline - clock.now().timestamp())
