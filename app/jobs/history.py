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
from collections.abc import Iterable
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


def window(attempt: Attempt) -> tuple[datetime, datetime]:
    """When *attempt* was sent, if it was: after it was written down, and before its answer was known to be lost."""
    return attempt.created_at - SKEW, (attempt.answered_at or clock.now()) + SKEW


def alike(job: Job, attempt: Attempt, sent: Iterable[Sent]) -> set[str]:
    """The ids of those in *sent* that could be *attempt*."""
    start, end = window(attempt)
    wanted = _canonical(addresses.swapped(job.input, attempt.sent_urls or {}))
    return {
        request.request_id
        for request in sent
        if start <= request.sent_at <= end and _canonical(request.input) == wanted
    }


async def recognise(session: AsyncSession, job: Job, attempt: Attempt, sent: Iterable[Sent]) -> str | None:
    """The one request in *sent* that *attempt* must be, now noted as if fal had answered; None if in doubt."""
    found = alike(job, attempt, sent)
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
