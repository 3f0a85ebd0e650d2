"""/v1/deliveries: what was told, what came back, and telling it again."""

from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from pydantic import AwareDatetime
from sqlalchemy.ext.asyncio import AsyncSession

from app import paging
from app.callbacks import queries, replays
from app.callbacks.queries import Filter
from app.callbacks.routes import EndpointDisabled
from app.callbacks.schemas import AttemptView, DeliveryDetail, DeliveryPage, DeliveryView, Replayed, ReplayOrder
from app.callbacks.tables import Delivery, DeliveryStatus
from app.db import Database
from app.errors import BodyTooLarge, InvalidRequest, NotFound, Unavailable, problems
from app.tenants.auth import JobsReader, JobsWriter, Unauthorized
from app.tenants.caller import Forbidden

router = APIRouter(prefix="/v1/deliveries", tags=["Callbacks"])


@router.get(
    "",
    operation_id="list_deliveries",
    summary="List deliveries",
    responses=problems(Unauthorized, Forbidden, InvalidRequest, Unavailable),
)
async def index(
    request: Request,
    caller: JobsReader,
    limit: paging.Limit = 20,
    cursor: paging.Cursor = None,
    endpoint_id: UUID | None = None,
    job_id: UUID | None = None,
    status: DeliveryStatus | None = None,
    created_after: Annotated[AwareDatetime | None, Query()] = None,
    created_before: Annotated[AwareDatetime | None, Query()] = None,
) -> DeliveryPage:
    """Newest first; `status=dead` shows what was given up."""
    chosen = Filter(endpoint_id, job_id, status, created_after, created_before)
    before = paging.decode(cursor)
    db: Database = request.app.state.db
    async with db.reading_as(caller.tenant_id) as session:
        rows = await queries.page(session, caller.tenant_id, chosen, limit=limit + 1, before=before)
    shown, next_cursor = paging.cut(rows, limit)
    return DeliveryPage(data=[DeliveryView.of(row) for row in shown], next_cursor=next_cursor)


@router.get(
    "/{delivery_id}",
    operation_id="get_delivery",
    summary="Look at a delivery",
    responses=problems(Unauthorized, Forbidden, NotFound, InvalidRequest, Unavailable),
)
async def show(request: Request, caller: JobsReader, delivery_id: Annotated[UUID, Path()]) -> DeliveryDetail:
    """What was sent, and what each try brought."""
    db: Database = request.app.state.db
    async with db.reading_as(caller.tenant_id) as session:
        row = _there(await queries.delivery(session, caller.tenant_id, delivery_id))
        tries = await queries.attempts(session, caller.tenant_id, delivery_id)
    return DeliveryDetail.of(row, body=row.body, attempts=[AttemptView.of(attempt) for attempt in tries])


@router.post(
    "/{delivery_id}/replay",
    operation_id="replay_delivery",
    summary="Deliver again",
    status_code=202,
    responses=problems(Unauthorized, Forbidden, NotFound, EndpointDisabled, InvalidRequest, Unavailable),
)
async def replay_one(request: Request, caller: JobsWriter, delivery_id: Annotated[UUID, Path()]) -> DeliveryView:
    """It is due at once, with the same id and body and all its tries before it, whatever became of it before."""

    async def replay(session: AsyncSession) -> DeliveryView:
        row = _there(await queries.delivery(session, caller.tenant_id, delivery_id))
        if not await replays.replay_one(session, caller.tenant_id, delivery_id):
            raise EndpointDisabled
        await session.refresh(row)
        return DeliveryView.of(row)

    db: Database = request.app.state.db
    delivery = await db.run(replay)
    request.app.state.announcer.announce()
    return delivery


@router.post(
    "/replay",
    operation_id="replay_deliveries",
    summary="Deliver many again",
    responses=problems(Unauthorized, Forbidden, BodyTooLarge, InvalidRequest, Unavailable),
)
async def replay(request: Request, caller: JobsWriter, order: ReplayOrder) -> Replayed:
    """
    By default everything that was given up, oldest first, up to a thousand at a time; a dry run counts it before.

    What goes to a disabled endpoint is left alone.
    """
    db: Database = request.app.state.db
    if order.dry_run:
        count = partial(replays.count, tenant_id=caller.tenant_id, chosen=order.chosen(), most=order.limit)
        return Replayed(count=await db.run(count), dry_run=True)
    again = partial(replays.replay, tenant_id=caller.tenant_id, chosen=order.chosen(), most=order.limit)
    replayed = Replayed(count=await db.run(again), dry_run=False)
    request.app.state.announcer.announce()
    return replayed


def _there(row: Delivery | None) -> Delivery:
    if row is None:
        raise NotFound("No delivery has this id.")
    return row
