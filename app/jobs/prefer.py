"""`Prefer: wait=N` (RFC 7240): an answer that waits for a job's end, without holding anything while it waits."""

import asyncio
import re
from contextlib import suppress
from typing import Annotated, Final
from uuid import UUID

from fastapi import Header, Request, Response
from pydantic import WithJsonSchema

from app.errors import AppError, NotFound
from app.jobs.hub import Hub
from app.jobs.schemas import JobView
from app.jobs.seeing import seen, shown
from app.sse import hang_up
from app.tenants.caller import Caller

LONGEST_S: Final = 60
WAIT: Final = re.compile(r'wait\s*=\s*"?(\d{1,6})"?', re.IGNORECASE)

Prefer = Annotated[
    list[str] | None,
    # It may come on several lines, which HTTP joins with commas; generators of clients know no list in a header.
    WithJsonSchema({"type": "string"}),
    Header(
        description=f"`wait=N` waits up to N seconds, {LONGEST_S} at most, for the job's end; "
        "`Preference-Applied` says that it did",
        examples=["wait=30"],
    ),
]


def wait_s(prefer: list[str] | None) -> int:
    """How many seconds the caller would wait; 0 if that isn't asked for, or not in the standard's words."""
    for preference in ",".join(prefer or ()).split(","):
        if found := WAIT.fullmatch(preference.partition(";")[0].strip()):
            return min(int(found[1]), LONGEST_S)
    return 0


async def ended(request: Request, response: Response, caller: Caller, job_id: UUID, longest_s: int) -> JobView | None:
    """
    The job once it has ended, or as it is after *longest_s* seconds; None if nobody can wait for it here.

    Then, as the standard has it, the answer is the same as without the wish. Who hangs up is waited for no longer.
    """
    hub: Hub = request.app.state.hub
    try:
        watch = hub.follow(caller, job_id, seen=0)
    except AppError:
        return None
    leaving = asyncio.create_task(hang_up(request.receive, watch))
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                while await watch.take() is not None:
                    pass
    finally:
        watch.leave()
        leaving.cancel()
    response.headers["Preference-Applied"] = f"wait={longest_s}"
    try:
        job = await seen(request, caller, job_id)
    except NotFound:
        return None
    return (await shown(request, [job]))[0]
