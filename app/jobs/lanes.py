"""
What waits in our queue, and what is at fal: the reads behind a round of dispatch.

A lane is what waits of one tenant for one model at one priority. The index goes by lane and then by time, so
going from lane to lane costs one step each, however many jobs are in them.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.jobs.fairness import AtFal, Caps, Room, Waiting, room
from app.jobs.states import JobStatus
from app.jobs.tables import Job
from app.tenants.tables import Tenant

MOST_LANES: Final = 10_000
"""Lanes looked at in a round: some tens of milliseconds, if all of them wait for a later time."""
MOST_ROWS: Final = 2_000
"""Jobs looked at in a round, unless there are more lanes than that."""

# `found` counts the tenants with a job that may go; of one more than enough the lanes may be incomplete.
LANES: Final = text("""
    WITH RECURSIVE lanes AS (
        (
            SELECT j.tenant_id, j.model, j.priority, may.go, may.go AS hit, 1 AS visited, CAST(may.go AS int) AS found
            FROM jobs j CROSS JOIN LATERAL (
                SELECT j.due_at <= now() AND j.tenant_id <> ALL(CAST(:full_tenants AS uuid[]))
                    AND j.model <> ALL(CAST(:full_models AS text[])) AS go
            ) may
            WHERE j.status = 'queued' AND j.tenant_id > :after AND j.tenant_id <= :until
            ORDER BY j.tenant_id, j.model, j.priority, j.due_at
            LIMIT 1
        )
        UNION ALL
        SELECT following.tenant_id, following.model, following.priority, may.go, may.go OR was.hit, l.visited + 1,
            l.found + CASE WHEN may.go AND NOT was.hit THEN 1 ELSE 0 END
        FROM lanes l
        CROSS JOIN LATERAL (
            SELECT j.tenant_id, j.model, j.priority, j.due_at
            FROM jobs j
            WHERE j.status = 'queued' AND (j.tenant_id, j.model, j.priority) > (l.tenant_id, l.model, l.priority)
                AND j.tenant_id <= :until
            ORDER BY j.tenant_id, j.model, j.priority, j.due_at
            LIMIT 1
        ) following
        CROSS JOIN LATERAL (
            SELECT following.due_at <= now() AND following.tenant_id <> ALL(CAST(:full_tenants AS uuid[]))
                AND following.model <> ALL(CAST(:full_models AS text[])) AS go
        ) may
        CROSS JOIN LATERAL (SELECT l.hit AND l.tenant_id = following.tenant_id AS hit) was
        WHERE l.visited < :most AND l.found <= :enough
    )
    SELECT tenant_id, model, priority, go, visited, found FROM lanes
    WHERE (go AND found <= :enough) OR visited = :most
    ORDER BY visited
""")
JOBS: Final = text("""
    SELECT found.*
    FROM unnest(CAST(:tenants AS uuid[]), CAST(:models AS text[]), CAST(:priorities AS bigint[]))
        AS lane (tenant_id, model, priority)
    CROSS JOIN LATERAL (
        SELECT j.tenant_id, j.id, j.model, j.priority, j.due_at
        FROM jobs j
        WHERE j.status = 'queued' AND j.tenant_id = lane.tenant_id AND j.model = lane.model
            AND j.priority = lane.priority AND j.due_at <= now() AND (j.deadline_at IS NULL OR j.deadline_at > now())
        ORDER BY j.due_at
        LIMIT :each
    ) found
""")
LOWEST, HIGHEST = UUID(int=0), UUID(int=2**128 - 1)


class Lane(NamedTuple):
    """What waits of one tenant for one model at one priority."""

    tenant_id: UUID
    model: str
    priority: int


class Lanes(NamedTuple):
    """Lanes with something due; *until* is the last tenant looked at, if there were too many to see all."""

    lanes: Sequence[Lane]
    until: UUID | None


async def lanes(
    session: AsyncSession,
    *,
    after: UUID | None,
    tenants: int,
    full_tenants: Collection[UUID] = (),
    full_models: Collection[str] = (),
    most: int = MOST_LANES,
) -> Lanes:
    """The lanes with something due of up to *tenants* tenants, beginning after *after* and coming round to it."""
    full = {"full_tenants": list(full_tenants), "full_models": list(full_models)}
    found: list[Lane] = []
    for start, end in ((after or LOWEST, HIGHEST), (LOWEST, after or LOWEST)):
        served = len({lane.tenant_id for lane in found})
        if start == end or served >= tenants:
            break
        bounds = {"after": start, "until": end, "most": most, "enough": tenants - served}
        rows = (await session.execute(LANES, {**full, **bounds})).all()
        found += [Lane(*row[:3]) for row in rows if row.go and row.found <= bounds["enough"]]
        if rows and rows[-1].visited == most:
            return Lanes(found, rows[-1].tenant_id)
    return Lanes(found, None)


async def due(session: AsyncSession, of: Sequence[Lane], *, limit: int) -> list[Waiting]:
    """Of each lane the first due jobs, at most *limit*."""
    if not of:
        return []
    tenants, models, priorities = zip(*of, strict=True)
    wanted: dict[str, Any] = {"tenants": list(tenants), "models": list(models), "priorities": list(priorities)}
    each = max(1, min(limit, MOST_ROWS // len(of)))
    return [Waiting(*row) for row in (await session.execute(JOBS, {**wanted, "each": each})).all()]


async def at_fal(session: AsyncSession) -> list[AtFal]:
    """What fal has, or may have, by tenant, model and account."""
    statuses = (JobStatus.SUBMITTING, JobStatus.SUBMIT_UNKNOWN, JobStatus.SUBMITTED, JobStatus.IN_PROGRESS)
    counted = (
        select(Job.tenant_id, Job.model, Job.fal_account, func.count())
        .where(Job.status.in_(statuses))
        .group_by(Job.tenant_id, Job.model, Job.fal_account)
    )
    return [AtFal(*row) for row in (await session.execute(counted)).all()]


async def own_caps(session: AsyncSession) -> dict[UUID, int]:
    """The tenants with a limit of their own, and which."""
    limited = select(Tenant.id, Tenant.at_once).where(Tenant.at_once.is_not(None))
    return {tenant_id: at_once for tenant_id, at_once in (await session.execute(limited)).all() if at_once is not None}


async def room_left(session: AsyncSession, caps: Caps) -> Room:
    """How much more may go to fal now; counted only where something is capped."""
    own = await own_caps(session)
    capped = own or caps.models or caps.tenant is not None or any(cap is not None for cap in caps.accounts.values())
    return room(caps, own, await at_fal(session) if capped else ())
