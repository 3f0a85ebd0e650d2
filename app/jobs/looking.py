"""
Jobs, looked at in sets: what is asked for while a look is under way is the next look.

Postgres shows the rows of the tenants that ask together, and no others; the statement gives each asker its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

from fastapi import Request

from app.db import Database
from app.errors import NotFound
from app.gather import Gatherer
from app.jobs import queries, waiting
from app.jobs.fairness import Caps
from app.jobs.queries import ROWS
from app.jobs.schemas import view
from app.tenants.caller import Caller

MOST: Final = 32
"""Members of a set: half as many as elsewhere, so that Postgres looks for some while others are being answered."""


@dataclass(frozen=True, slots=True)
class Look:
    """A member of a set: who asks for which job."""

    caller: Caller
    job_id: UUID


async def look(db: Database, caps: Caps, asked: Sequence[Look]) -> list[dict[str, Any] | None]:
    """The `view` of each job that is *asked* for; None if it isn't there, or not for the one who asks."""
    keys = [(each.caller.tenant_id, each.job_id) for each in asked]
    rows = await db.read_as_all({tenant_id for tenant_id, _ in keys}, ROWS, queries.asked(keys))
    reasons = await waiting.reasons(db, rows, caps)
    found = {row.id: row for row in rows}
    return [
        view(row, reasons) if (row := found.get(each.job_id)) is not None and each.caller.may_see(row) else None
        for each in asked
    ]


async def found(request: Request, caller: Caller, job_id: UUID) -> dict[str, Any]:
    """The `view` of one job, looked for together with others. Raises NotFound."""
    job: dict[str, Any] | None = await request.app.state.looking(Look(caller, job_id))
    if job is None:
        raise NotFound("No job has this id.")
    return job


def gatherer(db: Database, caps: Caps) -> Gatherer[Look, dict[str, Any] | None]:
    """Where a process's questions come together."""
    return Gatherer(partial(look, db, caps), most=MOST)
