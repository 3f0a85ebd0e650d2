"""Telling again what was told or given up: same id, same bytes, a new time and signature."""

from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.callbacks.queries import Filter
from app.callbacks.tables import Delivery, DeliveryStatus, Endpoint

MOST: Final = 1000
"""Deliveries replayed by one call."""


async def count(session: AsyncSession, tenant_id: UUID, chosen: Filter, *, most: int) -> int:
    """How many deliveries would be replayed, counted up to *most*."""
    return (await session.scalars(select(func.count()).select_from(_ids(tenant_id, chosen, most).subquery()))).one()


async def replay(session: AsyncSession, tenant_id: UUID, chosen: Filter, *, most: int = MOST) -> int:
    """
    Make up to *most* deliveries due again, the oldest first; how many.

    What is on its way already, or goes to an endpoint that is disabled, is left alone.
    """
    picked = _ids(tenant_id, chosen, most).with_for_update(skip_locked=True, of=Delivery).cte("picked")
    return await _again(session, tenant_id, Delivery.id.in_(select(picked.c.id)))


async def replay_one(session: AsyncSession, tenant_id: UUID, delivery_id: UUID) -> bool:
    """Make one delivery due now, with all its tries before it; False if its endpoint is disabled."""
    active = select(Endpoint.id).where(
        Endpoint.tenant_id == tenant_id, Endpoint.id == Delivery.endpoint_id, Endpoint.disabled_at.is_(None)
    )
    return bool(await _again(session, tenant_id, Delivery.id == delivery_id, active.exists()))


def _ids(tenant_id: UUID, chosen: Filter, most: int) -> Select[UUID]:
    return (
        select(Delivery.id)
        .join(Endpoint, (Endpoint.tenant_id == Delivery.tenant_id) & (Endpoint.id == Delivery.endpoint_id))
        .where(chosen.where(tenant_id), Delivery.status != DeliveryStatus.PENDING, Endpoint.disabled_at.is_(None))
        .order_by(Delivery.id)
        .limit(most)
    )


async def _again(session: AsyncSession, tenant_id: UUID, *which: ColumnElement[bool]) -> int:
    again = await session.execute(
        update(Delivery)
        .where(Delivery.tenant_id == tenant_id, *which)
        .values(
            status=DeliveryStatus.PENDING,
            due_at=func.now(),
            queued_at=func.now(),
            tries=0,
            dead_why=None,
            delivered_at=None,
            lease_owner=None,
            lease_token=Delivery.lease_token + 1,
        )
        .execution_options(synchronize_session=False)
    )
    return int(again.rowcount)  # type: ignore[attr-defined]
