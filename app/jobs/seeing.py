"""What a caller is shown of jobs: read as Postgres lets its tenant read, and no more than its token leaves."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from fastapi import Request
from sqlalchemy import ColumnElement

from app.db import Database
from app.errors import NotFound
from app.jobs import queries, waiting
from app.jobs.queries import Filter
from app.jobs.schemas import JobView
from app.jobs.tables import Job
from app.tenants.caller import Caller


async def seen(request: Request, caller: Caller, job_id: UUID) -> Job:
    """The job, as the database shows it to *caller*. Raises NotFound if it isn't there or not for *caller* to see."""
    db: Database = request.app.state.db
    async with db.reading_as(caller.tenant_id) as session:
        job = await queries.seen(session, caller, job_id)
    if job is None:
        raise NotFound("No job has this id.")
    return job


async def page(
    request: Request,
    caller: Caller,
    wanted: Filter,
    *,
    limit: int,
    cursor: UUID | None = None,
    oldest_first: bool = False,
    also: Sequence[ColumnElement[bool]] = (),
) -> Sequence[Job]:
    """Up to *limit* of the jobs that are *wanted*, and fit *also*, after the job *cursor*."""
    db: Database = request.app.state.db
    if wanted.metadata:
        # Row-level security would keep Postgres from the index on labels: so it finds ids, and shows nothing.
        async with db.session() as session:
            ids = await queries.page_ids(
                session, caller, wanted, limit=limit, cursor=cursor, oldest_first=oldest_first, also=also
            )
        wanted, also = replace(wanted, metadata={}), [Job.id.in_(ids)]
    async with db.reading_as(caller.tenant_id) as session:
        return await queries.page(
            session, caller, wanted, limit=limit, cursor=cursor, oldest_first=oldest_first, also=also
        )


async def shown(request: Request, jobs: Sequence[Job]) -> list[JobView]:
    """*jobs* as callers see them, with why they wait."""
    state = request.app.state
    reasons = await waiting.reasons(state.db, jobs, state.caps)
    return [JobView.of(job, reasons) for job in jobs]
