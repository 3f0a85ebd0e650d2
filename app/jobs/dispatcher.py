"""
We tell fal: take queued jobs and submit them.

Two short transactions around one call. The first writes down that we are about to send; the call is
made once, with no transaction open; the second writes down what came back. Dying between them leaves a
job that says so, and it is never sent again unless an operator decides that fal doesn't have it.
"""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app import clock, leases
from app.db import Database, ask_in
from app.fal.accounts import Account, Accounts
from app.fal.messages import Accepted, Lost, Refused, job_error
from app.files import addresses
from app.files.reaching import Reach, Unreached
from app.gather import Gatherer
from app.jobs import accounts, lifecycle, submits, taking
from app.jobs.fairness import Caps
from app.jobs.lifecycle import AttemptKey
from app.jobs.submits import Taken
from app.jobs.taking import Intent
from app.lines import Few

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(slots=True)
class Dispatcher:
    """Submits queued jobs, up to *at_once* at a time, and no more than *caps* let be at fal."""

    db: Database
    accounts: Accounts
    caps: Caps
    reach: Reach
    owner: str
    at_once: int
    lease_s: float
    progress_s: float
    priority: str = "normal"
    public_url: str | None = None
    _noting: Gatherer[Taken, bool] = field(init=False)

    def __post_init__(self) -> None:
        """What fal takes while earlier news of it is being committed is noted together."""
        self._noting = Gatherer(self._note_taken)

    async def take(self, limit: int) -> list[Coroutine[Any, Any, None]]:
        """The submits of up to *limit* due jobs, to be run side by side."""
        keys: list[AttemptKey] = []

        async def take(ask: Few) -> list[Intent]:
            return await taking.take(
                ask, owner=self.owner, limit=limit, lease_s=self.lease_s, caps=self.caps, keys=keys
            )

        try:
            taken = await self.db.run_few(take)
        except SQLAlchemyError as error:
            if not keys:
                raise
            # Perhaps only the answer to the commit got lost. That nothing was sent, nobody else will ever know.
            log.warning("take_unsure", jobs=len(keys), why=type(error).__name__)
            return [self._record(partial(_put_back, keys=keys, names=list(self.caps.accounts)))]
        return [self._submit(intent) for intent in taken]

    async def _submit(self, intent: Intent) -> None:
        job, attempt = intent.job, intent.attempt
        key = _key(intent)
        account = self.accounts.get(attempt.fal_account)
        model_input = await self._reachable(intent, account)
        if model_input is None:
            return
        answer = await account.queue.submit(
            job.model,
            model_input,
            webhook_url=f"{self.public_url}/webhooks/fal/{intent.token}" if self.public_url else None,
            priority=self.priority,
            start_timeout_s=_left_s(job.deadline_at.timestamp()) if job.deadline_at else None,
        )
        facts = {"job_id": str(job.id), "attempt": attempt.number, "fal_account": attempt.fal_account}
        match answer:
            case Accepted():
                log.info("job_submitted", fal_request_id=answer.request_id, **facts)
                if await self._noting(Taken(intent, answer)):
                    log.warning("account_opened", fal_account=attempt.fal_account)
            case Refused():
                log.warning("submit_refused", status_code=answer.code, why=answer.error["code"], **facts)
                if await self._record(partial(_note_refused, intent=intent, key=key, answer=answer)):
                    log.error("account_locked", why=answer.why, fal_account=attempt.fal_account)
            case Lost():
                log.error("submit_answer_lost", why=answer.why, **facts)
                await self._record(partial(lifecycle.lost, key=key, why=answer.why))

    async def _reachable(self, intent: Intent, account: Account) -> dict[str, Any] | None:
        """The job's input with files that fal can fetch, written down as such; None if it isn't to be sent now."""
        job, key = intent.job, _key(intent)
        if not addresses.ids(job.input):
            return job.input
        facts = {"job_id": str(job.id), "attempt": intent.attempt.number, "fal_account": account.name}
        try:
            async with leases.holding(self.db, job, self.lease_s):
                urls = await self.reach.urls(job.tenant_id, job.input, account.uploads)
        except Unreached as error:
            log.warning("files_unreached", why=str(error), **facts)
            answer = Refused(None, "fal", job_error(None, None, kind="not_sent", text=str(error), retryable=True))
            wait_s = leases.backoff_s(job.attempts)
            await self._record(partial(lifecycle.refused, key=key, answer=answer, wait_s=wait_s))
            return None
        if not await self.db.insist(partial(lifecycle.about_to_send, key=key, urls=urls), for_s=self.lease_s):
            log.warning("submit_too_late", **facts)
            return None
        sent: dict[str, Any] = addresses.swapped(job.input, urls)
        return sent

    async def _record(self, news: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Write down what fal said, even if Postgres is away just now: nobody else knows it."""
        return await self.db.insist(news, for_s=self.lease_s)

    async def _note_taken(self, members: Sequence[Taken]) -> Sequence[bool]:
        """Whether each opened its account."""
        return await submits.note(self.db, members, progress_s=self.progress_s, for_s=self.lease_s)


def _key(intent: Intent) -> AttemptKey:
    return AttemptKey(intent.job.tenant_id, intent.attempt.id)


async def _note_refused(session: AsyncSession, intent: Intent, key: AttemptKey, answer: Refused) -> bool:
    """Whether this locked the account."""
    job, attempt = intent.job, intent.attempt
    if not answer.parks:
        wait_s = answer.retry_after_s or leases.backoff_s(job.attempts)
        await lifecycle.refused(session, key, answer, wait_s=wait_s)
        return False
    # It waits for the account and not for a time of its own, and may go to another account at once.
    locked = await accounts.refused(session, attempt.fal_account, answer, sent_at=attempt.created_at)
    await lifecycle.refused(session, key, answer, wait_s=0.0)
    return locked


async def _put_back(session: AsyncSession, keys: Sequence[AttemptKey], names: Sequence[str]) -> None:
    # The take holds its accounts until it is over; so does who waits for them know what became of it.
    for statement in (accounts.ADD, accounts.HOLD):
        await ask_in(session, statement, {"names": names})
    reason = job_error(
        None, None, kind="not_sent", text="The database was away before anything was sent.", retryable=True
    )
    for key in keys:
        # An attempt that was never committed isn't found, and its job is still queued.
        await lifecycle.refused(session, key, Refused(None, "fal", reason), wait_s=0.0)


def _left_s(deadline: float) -> float:
    # fal takes nothing below 0.1 s, and its own clients nothing below 1 s.
    return max(1.0, deadline - clock.now().timestamp())
