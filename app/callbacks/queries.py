"""Reads: endpoints, deliveries and their attempts, and what was given up."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.callbacks.tables import Attempt, Delivery, DeliveryStatus, Endpoint
from app.db import made


@dataclass(frozen=True, slots=True)
class Filter:
    """Which deliveries of a tenant are meant."""

    endpoint_id: UUID | None = None
    job_id: UUID | None = None
    status: DeliveryStatus | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None

    def where(self, tenant_id: UUID) -> ColumnElement[bool]:
        """The same in SQL."""
        wanted = [Delivery.tenant_id == tenant_id]
        if self.endpoint_id is not None:
            wanted.append(Delivery.endpoint_id == self.endpoint_id)
        if self.job_id is not None:
            wanted.append(Delivery.job_id == self.job_id)
        if self.status is not None:
            wanted.append(Delivery.status == self.status)
        # A row's time is in no index, and its id tells about when it was written.
        wanted += made(Delivery.id, self.created_after, self.created_before)
        if self.created_after is not None:
            wanted.append(Delivery.created_at > self.created_after)
        if self.created_before is not None:
            wanted.append(Delivery.created_at < self.created_before)
        return and_(*wanted)


async def endpoint(session: AsyncSession, tenant_id: UUID, endpoint_id: UUID, *, lock: bool = False) -> Endpoint | None:
    """The tenant's endpoint, or None; locked until the transaction ends, if it is to be changed."""
    wanted = select(Endpoint).where(
        Endpoint.tenant_id == tenant_id,
        Endpoint.id == endpoint_id,
        Endpoint.url.is_not(None),
        Endpoint.deleted_at.is_(None),
    )
    return await session.scalar(wanted.with_for_update() if lock else wanted)


async def endpoints(session: AsyncSession, tenant_id: UUID) -> Sequence[Endpoint]:
    """All of the tenant's endpoints, newest first."""
    there = select(Endpoint).where(
        Endpoint.tenant_id == tenant_id, Endpoint.url.is_not(None), Endpoint.deleted_at.is_(None)
    )
    return (await session.scalars(there.order_by(Endpoint.id.desc()))).all()


async def of_jobs(session: AsyncSession, tenant_id: UUID, *, lock: bool = False) -> Endpoint:
    """The endpoint that stands for the jobs' own callback_urls; there must be one."""
    wanted = select(Endpoint).where(Endpoint.tenant_id == tenant_id, Endpoint.url.is_(None))
    return (await session.scalars(wanted.with_for_update() if lock else wanted)).one()


async def page(
    session: AsyncSession, tenant_id: UUID, chosen: Filter, *, limit: int, before: UUID | None = None
) -> Sequence[Delivery]:
    """Up to *limit* of the tenant's deliveries, newest first, older than the delivery *before*."""
    wanted = select(Delivery).where(chosen.where(tenant_id))
    if before is not None:
        wanted = wanted.where(Delivery.id < before)
    return (await session.scalars(wanted.order_by(Delivery.id.desc()).limit(limit))).all()


async def delivery(session: AsyncSession, tenant_id: UUID, delivery_id: UUID) -> Delivery | None:
    """The tenant's delivery, or None."""
    return await session.get(Delivery, (tenant_id, delivery_id))


async def attempts(session: AsyncSession, tenant_id: UUID, delivery_id: UUID, *, limit: int = 100) -> Sequence[Attempt]:
    """The tries to deliver it, the newest *limit* of them, oldest first."""
    wanted = select(Attempt).where(Attempt.tenant_id == tenant_id, Attempt.delivery_id == delivery_id)
    newest = (await session.scalars(wanted.order_by(Attempt.id.desc()).limit(limit))).all()
    return list(reversed(newest))
