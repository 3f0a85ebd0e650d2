"""Reads: one job, a page of jobs, how long a model usually takes."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, select, tuple_, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs.schedule import UNKNOWN_S
from app.jobs.states import AttemptStatus, JobStatus
from app.jobs.tables import Attempt, Job
from app.tenants.caller import Caller

HISTORY: Final = 50
"""Finished jobs of a model looked at to tell how long the next one takes."""


async def get(session: AsyncSession, tenant_id: UUID, job_id: UUID) -> Job | None:
    """The tenant's job, or None."""
    return await session.get(Job, (tenant_id, job_id))


def visible(caller: Caller) -> list[ColumnElement[bool]]:
    """What a WHERE clause must hold so that it finds *caller*'s jobs only, as its browser token narrows them."""
    mine = [Job.tenant_id == caller.tenant_id]
    if caller.token is not None:
        mine.append(Job.end_user == caller.token.end_user)
        if caller.token.models is not None:
            mine.append(Job.model.in_(sorted(caller.token.models)))
    return mine


async def seen(session: AsyncSession, caller: Caller, job_id: UUID) -> Job | None:
    """The job, or None if it isn't there or not for *caller* to see."""
    return await session.scalar(select(Job).where(*visible(caller), Job.id == job_id))


async def page(session: AsyncSession, caller: Caller, *, limit: int, **filters: Any) -> Sequence[Job]:
    """
    Up to *limit* of the jobs that *caller* may see and *filters* (of `_filtered`) let through, newest first.

    Ids are UUIDv7, so their order is the order of creation and the primary key serves every page alike.
    """
    wanted = [*visible(caller), *_filtered(**filters)]
    return (await session.scalars(select(Job).where(*wanted).order_by(Job.id.desc()).limit(limit))).all()


async def labeled(
    session: AsyncSession, caller: Caller, metadata: Mapping[str, str], *, limit: int, **filters: Any
) -> Sequence[UUID]:
    """The ids of such jobs that carry all of *metadata*."""
    wanted = [*visible(caller), *_filtered(**filters), Job.labels.contains(dict(metadata)), Job.labels != {}]
    return (await session.scalars(select(Job.id).where(*wanted).order_by(Job.id.desc()).limit(limit))).all()


def _filtered(
    *,
    before: UUID | None = None,
    ids: Sequence[UUID] | None = None,
    statuses: Iterable[JobStatus] = (),
    model: str | None = None,
    end_user: str | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    if before is not None:
        wanted.append(Job.id < before)
    if ids is not None:
        wanted.append(Job.id.in_(ids))
    if chosen := list(statuses):
        wanted.append(Job.status.in_(chosen))
    if model is not None:
        wanted.append(Job.model == model)
    if end_user is not None:
        wanted.append(Job.end_user == end_user)
    if created_after is not None:
        wanted.append(Job.created_at > created_after)
    if created_before is not None:
        wanted.append(Job.created_at < created_before)
    return wanted


async def typical_s(session: AsyncSession, model: str) -> float:
    """How long *model* took between submit and finish lately, in the middle of this deployment's own history."""
    took = (
        select(func.extract("epoch", Job.finished_at - Job.submitted_at).label("s"))
        .where(Job.model == model, Job.status == JobStatus.SUCCEEDED)
        .order_by(Job.finished_at.desc())
        .limit(HISTORY)
        .subquery()
    )
    middle = await session.scalar(select(func.percentile_cont(0.5).within_group(took.c.s)))
    return float(middle) if middle is not None else UNKNOWN_S


async def attempts_at_fal(session: AsyncSession, jobs: Iterable[Job]) -> dict[UUID, Attempt]:
    """The attempt of each of *jobs* that fal has, or may have, by job id."""
    keys = [(job.tenant_id, job.id) for job in jobs]
    found = await session.scalars(
        select(Attempt)
        .join(Job, and_(Job.tenant_id == Attempt.tenant_id, Job.id == Attempt.job_id))
        .where(
            tuple_(Attempt.tenant_id, Attempt.job_id).in_(keys),
            or_(Attempt.status != AttemptStatus.REFUSED, Attempt.fal_request_id == Job.fal_request_id),
        )
        .order_by(Attempt.number)
    )
    return {attempt.job_id: attempt for attempt in found}


async def attempt_by_token(session: AsyncSession, tenant_id: UUID, digest: bytes) -> Attempt | None:
    """The attempt whose webhook URL carries the token of *digest*, or None."""
    return await session.scalar(select(Attempt).where(Attempt.tenant_id == tenant_id, Attempt.token_digest == digest))


async def taken(session: AsyncSession, request_id: str) -> bool:
    """Whether fal's *request_id* is known to be some attempt's, whoever's it is."""
    known = select(Attempt.id).where(Attempt.fal_request_id == request_id).limit(1)
    return await session.scalar(known) is not None


async def claims(
    session: AsyncSession, job: Job, attempt: Attempt, request_ids: Iterable[str], *, margin: timedelta
) -> set[str | None]:
    """
    Those of fal's *request_ids* that are some attempt's; None among them if another's lost answer could name one.

    Tenants share the fal account, so this looks at all of them. It is one statement, for it must see one
    moment: an attempt that learns its request between two looks would be missed by both.
    """
    known = select(Attempt.fal_request_id).where(Attempt.fal_request_id.in_(list(request_ids)))
    rivals = (
        select(Attempt.fal_request_id)
        .join(Job, and_(Job.tenant_id == Attempt.tenant_id, Job.id == Attempt.job_id))
        .where(
            Attempt.fal_request_id.is_(None),
            Attempt.status != AttemptStatus.REFUSED,
            Attempt.id != attempt.id,
            Attempt.created_at <= (attempt.answered_at or func.now()) + margin,
            func.coalesce(Attempt.answered_at, func.now()) >= attempt.created_at - margin,
            Job.model == job.model,
            Job.input == job.input,
        )
    )
    return set(await session.scalars(union_all(known, rivals)))
