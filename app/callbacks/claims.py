"""Which deliveries may be sent now: due ones, endpoint by endpoint, and a job's events in their order."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app import leases
from app.callbacks.tables import Delivery, DeliveryStatus, Endpoint

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


async def claim(session: AsyncSession, lane: Lane, *, owner: str, limit: int, lease_s: float) -> Sequence[Delivery]:
    """Up to *limit* due deliveries of *lane*, now *owner*'s; none whose job has an earlier one still to be told."""
    earlier = aliased(Delivery)
    held_back = (
        select(earlier.id)
        .where(
            earlier.tenant_id == Delivery.tenant_id,
            earlier.job_id == Delivery.job_id,
            earlier.endpoint_id == Delivery.endpoint_id,
            earlier.sequence < Delivery.sequence,
            earlier.status == DeliveryStatus.PENDING,
            earlier.queued_at > func.now() - PATIENCE,
        )
        .exists()
    )
    return await leases.claim(
        session,
        Delivery,
        Delivery.tenant_id == lane.tenant_id,
        Delivery.endpoint_id == lane.endpoint_id,
        ~held_back,
        owner=owner,
        limit=limit,
        lease_s=lease_s,
    )
