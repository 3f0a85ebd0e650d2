"""The outbox: what is to be told, written in the transaction that makes it happen."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, ScalarSelect, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.callbacks.events import ENDINGS
from app.callbacks.signing import new_secret
from app.callbacks.tables import Delivery, Endpoint
from app.db import new_id


def of_jobs(tenant_id: UUID) -> dict[str, Any]:
    """A row for the endpoint that stands for the tenant's jobs' own callback_urls, in JSON, for who has none yet."""
    secret = "\\x" + new_secret().hex()
    return {"tenant_id": tenant_id, "id": new_id(), "events": ENDINGS, "secret": secret}


async def ensure_of_jobs(session: AsyncSession, tenant_id: UUID) -> None:
    """Make the endpoint that stands for the tenant's jobs' own callback_urls, if there is none."""
    made = insert(Endpoint).values(tenant_id=tenant_id, id=new_id(), events=list(ENDINGS), secret=new_secret())
    await session.execute(made.on_conflict_do_nothing())


def listeners(table: type[Any], kind: str) -> ScalarSelect[Any]:
    """
    The ids of the endpoints that want to hear *kind* of a row of *table*, which has `tenant_id` and `callback_url`.

    For the RETURNING of the statement that makes it happen: who has no endpoints pays one look into an index for
    it, and no round trip.
    """
    concerned: ColumnElement[bool] = or_(Endpoint.url.is_not(None), table.callback_url.is_not(None))
    return (
        select(func.array_agg(Endpoint.id))
        .where(
            Endpoint.tenant_id == table.tenant_id,
            Endpoint.disabled_at.is_(None),
            Endpoint.events.contains([kind]),
            concerned,
        )
        .correlate(table)
        .scalar_subquery()
    )


async def add(
    session: AsyncSession,
    endpoint_ids: Iterable[UUID],
    *,
    tenant_id: UUID,
    job_id: UUID | None,
    sequence: int | None,
    kind: str,
    body: str,
    callback_url: str | None = None,
) -> list[UUID]:
    """
    Write down that *body* is to be told to each of *endpoint_ids*; the ids of the deliveries.

    *callback_url* is the job's own, for the endpoint that stands for those.
    """
    wanted = select(Endpoint.id, Endpoint.url).where(
        Endpoint.tenant_id == tenant_id, Endpoint.id.in_(list(endpoint_ids))
    )
    rows = [
        Delivery(
            tenant_id=tenant_id,
            id=new_id(),
            endpoint_id=endpoint_id,
            job_id=job_id,
            sequence=sequence,
            url=callback_url if url is None else None,
            type=kind,
            body=body,
            due_at=func.now(),
        )
        for endpoint_id, url in await session.execute(wanted)
    ]
    session.add_all(rows)
    await session.flush()
    return [row.id for row in rows]
