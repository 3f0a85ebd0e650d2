"""Reads: one job, a page of jobs, how long a model usually takes."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import and_, func, or_, select, tuple_, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from app.files import addresses
from app.jobs.schedule import UNKNOWN_S
from app.jobs.states import AttemptStatus, JobStatus
from app.jobs.tables import Attempt, Job

HISTORY: Final = 50
"""Finished jobs of a model looked at to tell how long the next one takes."""


async def get(session: AsyncSession, tenant_id: UUID, job_id: UUID) -> Job | None:
    """The tenant's job, or None."""
    return await session.get(Job, (tenant_id, job_id))


async def page(
    session: AsyncSession,
    tenant_id: UUID,
    *,
    limit: int,
    before: UUID | None = None,
    statuses: Iterable[JobStatus] = (),
    model: str | None = None,
    end_user: str | None = None,
    metadata: Mapping[str, str] | None = None,
    created_after: datetime | None = None,
    created_before: datetime | None = None,
) -> Sequence[Job]:
    """
    Up to *limit* of the tenant's jobs, newest first, older than the job *before*.

    Ids are UUIDv7, so their order is the order of creation and the primary key serves every page alike.
    """
    wanted: list[Any] = [Job.tenant_id == tenant_id]
    if before is not None:
        wanted.append(Job.id < before)
    if chosen := list(statuses):
        wanted.append(Job.status.in_(chosen))
    if model is not None:
        wanted.append(Job.model == model)
    if end_user is not None:
        wanted.append(Job.end_user == end_user)
    if metadata:
        wanted.append(Job.labels.contains(dict(metadata)))
        wanted.append(Job.labels != {})
    if created_after is not None:
        wanted.append(Job.created_at > created_after)
    if created_before is not None:
        wanted.append(Job.created_at < created_before)
    return (await session.scalars(select(Job).where(*wanted).order_by(Job.id.desc()).limit(limit))).all()


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
            # What was sent alike: the same files under the same addresses, or the addresses that fal was told as such.
            or_(
                and_(Job.input == job.input, Attempt.sent_urls.is_not_distinct_from(attempt.sent_urls)),
                Job.input == addresses.swapped(job.input, attempt.sent_urls or {}),
            ),
        )
    )
    return set(await session.scalars(union_all(known, rivals)))
