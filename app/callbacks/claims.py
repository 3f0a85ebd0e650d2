"""Which deliveries may be sent now: due ones, endpoint by endpoint, and a job's events in their order."""

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from app import leases
from app.callbacks.tables import Delivery, Endpoint

PATIENCE: Final = timedelta(minutes=5)
"""How long a job's later event waits for an earlier one that its receiver doesn't take; then its number must tell."""


class Lane(NamedTuple):
    """Names an endpoint; each has a share of the sender's places."""

    tenant_id: UUID
    endpoint_id: UUID


async def lanes(session: AsyncSession, *, without: Collection[Lane], limit: int) -> list[Lane]:
    """Up to *limit* endpoints that have something due, in no order, so that all get their turn; none of *without*."""
    soonest = (
        select(Delivery.due_at)
        .where(
            Delivery.tenant_id == Endpoint.tenant_id,
            Delivery.endpoint_id == Endpoint.id,
            Delivery.due_at.is_not(None),
        )
        .order_by(Delivery.due_at)
        .limit(1)
        .correlate(Endpoint)
        .scalar_subquery()
    )
    # One look into the index for each endpoint, however long the line before it.
    found = select(Endpoint.tenant_id, Endpoint.id).where(soonest <= func.now())
    if without:
        found = found.where(tuple_(Endpoint.tenant_id, Endpoint.id).not_in([tuple(lane) for lane in without]))
    rows = await session.execute(found.order_by(func.random()).limit(limit))
    return [Lane(*row) for row in rows.all()]


# An event of a job waits for those before it, but not for ever.
PICK: Final = """
    SELECT picked.tenant_id, picked.id
    FROM unnest(CAST(%(tenants)s AS uuid[]), CAST(%(endpoints)s AS uuid[]), CAST(%(rooms)s AS bigint[]))
        AS lane (tenant_id, endpoint_id, room)
    CROSS JOIN LATERAL (
        SELECT d.tenant_id, d.id
        FROM callback_deliveries AS d
        WHERE d.tenant_id = lane.tenant_id AND d.endpoint_id = lane.endpoint_id AND d.due_at <= now()
            AND NOT EXISTS (
                SELECT FROM callback_deliveries AS earlier
                WHERE earlier.tenant_id = d.tenant_id AND earlier.job_id = d.job_id
                    AND earlier.endpoint_id = d.endpoint_id AND earlier.sequence < d.sequence
                    AND earlier.status = 'pending' AND earlier.queued_at > now() - CAST(%(patience)s AS interval)
            )
        ORDER BY d.due_at
        LIMIT lane.room
        FOR UPDATE SKIP LOCKED
    ) AS picked
    LIMIT %(limit)s
"""


async def claim(
    session: AsyncSession, rooms: Mapping[Lane, int], *, owner: str, limit: int, lease_s: float
) -> Sequence[Delivery]:
    """
    Up to *limit* due deliveries, now *owner*'s, and of each lane as many as *rooms* says.

    None whose job has an earlier one still to be told.
    """
    wanted = {
        "tenants": [lane.tenant_id for lane in rooms],
        "endpoints": [lane.endpoint_id for lane in rooms],
        "rooms": list(rooms.values()),
        "patience": PATIENCE,
        "limit": limit,
    }
    picked = (await (await session.connection()).exec_driver_sql(PICK, wanted)).all()
    if not picked:
        return []
    ours = tuple_(Delivery.tenant_id, Delivery.id).in_([tuple(key) for key in picked])
    return await leases.claim(session, Delivery, ours, owner=owner, limit=limit, lease_s=lease_s)
