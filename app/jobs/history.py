"""
Which request a submit became whose answer got lost: told by fal's history.

A request is recognised by endpoint, time and exact input, and only if there is no doubt: one request that
could be it, and one attempt that it could be.

That none is listed proves nothing, and no job is sent again for it. fal promises neither that it lists what
waits in its queue (for hours, if the account is busy) nor how soon anything is listed, nor that inputs are kept;
so a submit that a worker never came to send, because it was killed right before, can't be told from one that
waits there. Such a job keeps its hold as `submit_unknown` until its webhook or an operator decides.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from app import clock
from app.fal.messages import Accepted, Sent
from app.files import addresses
from app.jobs import lifecycle, queries
from app.jobs.lifecycle import AttemptKey
from app.jobs.tables import Attempt, Job

SKEW: Final = timedelta(seconds=60)
"""How far fal's clock and ours may be apart."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A submit whose answer got lost."""

    job: Job
    attempt: Attempt

    @property
    def start(self) -> datetime:
        """The earliest that fal may say it was sent, if it was: after it was written down."""
        return self.attempt.created_at - SKEW

    @property
    def end(self) -> datetime:
        """The latest that fal may say so: before its answer was known to be lost."""
        return (self.attempt.answered_at or clock.now()) + SKEW

    @property
    def age_s(self) -> float:
        """How long it has been written down."""
        return (clock.now() - self.attempt.created_at).total_seconds()

    @property
    def input(self) -> str:
        """What was sent, in the one form that equal inputs have."""
        return _canonical(addresses.swapped(self.job.input, self.attempt.sent_urls or {}))


def sought(together: Iterable[Lost]) -> Callable[[Sent], bool]:
    """Whether a request has the input of one of *together*."""
    inputs = {lost.input for lost in together}
    return lambda request: _canonical(request.input) in inputs


def alike(lost: Lost, sent: Iterable[Sent]) -> set[str]:
    """The ids of those in *sent* that *lost* could be."""
    start, end, wanted = lost.start, lost.end, lost.input
    return {
        request.request_id
        for request in sent
        if start <= request.sent_at <= end and _canonical(request.input) == wanted
    }


async def recognise(session: AsyncSession, lost: Lost, sent: Iterable[Sent]) -> str | None:
    """The one request in *sent* that *lost* must be, now noted as if fal had answered; None if in doubt."""
    job, attempt = lost.job, lost.attempt
    found = alike(lost, sent)
    if not found:
        return None
    claims = await queries.claims(session, job, attempt, found, margin=2 * SKEW)
    free = found - claims
    if None in claims or len(free) != 1:
        return None
    (request_id,) = free
    expected_s = await queries.typical_s(session, job.model)
    key = AttemptKey(job.tenant_id, attempt.id)
    await lifecycle.submitted(session, key, Accepted(request_id), expected_s=expected_s, ask_s=0)
    return request_id


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
