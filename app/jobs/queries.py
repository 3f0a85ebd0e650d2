"""Reads: one job, a page of jobs, how long a model usually takes."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, func, inspect, or_, select, tuple_, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import ask_in, made
from app.files import addresses
from app.jobs import tokens
from app.jobs.schedule import UNKNOWN_S
from app.jobs.states import AttemptStatus, JobStatus
from app.jobs.tables import Attempt, Job
from app.lines import Ask, Asked, uuids
from app.tenants.caller import Caller

T = TypeVar("T")

HISTORY: Final = 50
"""Finished jobs of a model looked at to tell how long the next one takes."""

COLUMNS: Final = ", ".join(f"jobs.{each.columns[0].name} AS {each.key}" for each in inspect(Job).column_attrs)
ROWS: Final = f"""
    SELECT {COLUMNS}
    FROM unnest(CAST(%(tenants)s AS uuid[]), CAST(%(ids)s AS uuid[])) AS asked (tenant_id, id)
    JOIN jobs ON jobs.tenant_id = asked.tenant_id AND jobs.id = asked.id
"""  # noqa: S608 - names of our own columns


async def get(session: AsyncSession, tenant_id: UUID, job_id: UUID) -> Job | None:
    """The tenant's job, or None."""
    return await session.get(Job, (tenant_id, job_id))


async def rows(ask: Ask, keys: Collection[tuple[UUID, UUID]]) -> Sequence[Any]:
    """The jobs with these *keys* (tenant and id) as plain rows, which have a job's columns; in no order."""
    return await ask(ROWS, asked(keys))


def asked(keys: Collection[tuple[UUID, UUID]]) -> dict[str, str]:
    """The values of ROWS that name jobs by tenant and id."""
    return {"tenants": uuids(tenant_id for tenant_id, _ in keys), "ids": uuids(job_id for _, job_id in keys)}


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


@dataclass(frozen=True, slots=True)
class Filter:
    """Which of a caller's jobs are meant; what isn't given doesn't matter."""

    statuses: Collection[JobStatus] = ()
    model: str | None = None
    end_user: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    created_after: datetime | None = None
    created_before: datetime | None = None

    def clauses(self, caller: Caller) -> list[ColumnElement[bool]]:
        """It as conditions on the jobs that *caller* may see."""
        wanted = visible(caller)
        if self.statuses:
            wanted.append(Job.status.in_(list(self.statuses)))
        if self.model is not None:
            wanted.append(Job.model == self.model)
        if self.end_user is not None:
            wanted.append(Job.end_user == self.end_user)
        if self.metadata:
            wanted.append(Job.labels.contains(dict(self.metadata)))
            wanted.append(Job.labels != {})
        # A row's time is in no index, and its id tells about when it was written.
        wanted += made(Job.id, self.created_after, self.created_before)
        if self.created_after is not None:
            wanted.append(Job.created_at > self.created_after)
        if self.created_before is not None:
            wanted.append(Job.created_at < self.created_before)
        return wanted


async def page(
    session: AsyncSession,
    caller: Caller,
    wanted: Filter,
    *,
    limit: int,
    cursor: UUID | None = None,
    oldest_first: bool = False,
    also: Sequence[ColumnElement[bool]] = (),
) -> Sequence[Job]:
    """
    Up to *limit* of *caller*'s jobs, in the order of their creation, after the job *cursor*.

    Ids are UUIDv7, so their order is the order of creation and the primary key serves every page alike.
    """
    found = await session.scalars(_page(select(Job), caller, wanted, limit, cursor, oldest_first, also))
    return found.all()


async def page_ids(
    session: AsyncSession,
    caller: Caller,
    wanted: Filter,
    *,
    limit: int,
    cursor: UUID | None = None,
    oldest_first: bool = False,
    also: Sequence[ColumnElement[bool]] = (),
) -> Sequence[UUID]:
    """Their ids alone."""
    found = await session.scalars(_page(select(Job.id), caller, wanted, limit, cursor, oldest_first, also))
    return found.all()


def _page(
    what: Select[T],
    caller: Caller,
    wanted: Filter,
    limit: int,
    cursor: UUID | None,
    oldest_first: bool,
    also: Sequence[ColumnElement[bool]],
) -> Select[T]:
    clauses = [*wanted.clauses(caller), *also]
    if cursor is not None:
        clauses.append(Job.id > cursor if oldest_first else Job.id < cursor)
    return what.where(*clauses).order_by(Job.id.asc() if oldest_first else Job.id.desc()).limit(limit)


TYPICAL: Final = """
    SELECT model, percentile_cont(0.5) WITHIN GROUP (ORDER BY took.s) AS middle
    FROM unnest(CAST(%(models)s AS text[])) AS model CROSS JOIN LATERAL (
        SELECT extract(epoch FROM finished_at - submitted_at) AS s
        FROM jobs WHERE jobs.model = model.model AND status = 'succeeded' ORDER BY finished_at DESC LIMIT %(history)s
    ) AS took
    GROUP BY model
"""


async def typical(session: AsyncSession, models: Collection[str]) -> dict[str, float]:
    """How many seconds each of *models* took between submit and finish lately, in the middle of our own history."""
    return typical_in(await ask_in(session, *asking_typical(models)), models)


def asking_typical(models: Collection[str]) -> Asked:
    """Asks for the same; `typical_in` reads the answer."""
    return TYPICAL, {"models": sorted(set(models)), "history": HISTORY}


def typical_in(rows: Iterable[Any], models: Collection[str]) -> dict[str, float]:
    """The answer: of a model without a history it says UNKNOWN_S."""
    return {**dict.fromkeys(models, UNKNOWN_S), **{row.model: float(row.middle) for row in rows}}


async def typical_s(session: AsyncSession, model: str) -> float:
    """The same of one *model*."""
    return (await typical(session, [model]))[model]


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


async def attempt_by_token(session: AsyncSession, token: str) -> Attempt | None:
    """The attempt whose webhook URL carries *token*, or None."""
    key = tokens.key_of(token)
    if key is None:
        return None
    tenant_id, attempt_id = key
    digest = tokens.token_digest(token)
    its = select(Attempt).where(Attempt.tenant_id == tenant_id, Attempt.token_digest == digest)
    return await session.scalar(its if attempt_id is None else its.where(Attempt.id == attempt_id))


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
