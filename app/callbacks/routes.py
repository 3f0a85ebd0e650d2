"""/v1/endpoints and /v1/callback-secret: where a tenant wants to be called, and what signs it."""

from datetime import timedelta
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from ssrfguard import Policy

from app import clock
from app.callbacks import outbox, outcomes, queries, signing
from app.callbacks.events import TEST, body_of
from app.callbacks.outcomes import Why
from app.callbacks.schemas import (
    DeliveryView,
    EndpointChange,
    EndpointList,
    EndpointView,
    EndpointWithSecret,
    NewEndpoint,
    SecretRotation,
    SecretView,
)
from app.callbacks.tables import Endpoint
from app.callbacks.targets import fault_of
from app.db import Database, new_id
from app.errors import AppError, BodyTooLarge, Fault, InvalidRequest, NotFound, Unavailable, problems
from app.tenants.audit import audit
from app.tenants.auth import JobsReader, JobsWriter, Unauthorized
from app.tenants.caller import Caller, Forbidden
from app.tenants.tables import Tenant

router = APIRouter(prefix="/v1", tags=["Callbacks"])

MOST: Final = 20
"""Endpoints a tenant may have; each event is written down once for each."""
EndpointId = Annotated[UUID, Path()]


class TooManyEndpoints(AppError):
    """There are as many endpoints as a tenant may have; delete one first."""

    status, code = 409, "too_many_endpoints"


class EndpointDisabled(AppError):
    """This endpoint is disabled, so nothing is sent there; enable it first."""

    status, code = 409, "endpoint_disabled"


@router.post(
    "/endpoints",
    operation_id="create_endpoint",
    summary="Add an endpoint",
    status_code=201,
    responses=problems(Unauthorized, Forbidden, TooManyEndpoints, BodyTooLarge, InvalidRequest, Unavailable),
)
async def create(request: Request, response: Response, caller: JobsWriter, order: NewEndpoint) -> EndpointWithSecret:
    """From now on it is called when what it asks for happens to any of your jobs. The secret is shown this once."""
    check_url(request.app.state.callback_policy, order.url, "/url")
    row = Endpoint(
        tenant_id=caller.tenant_id,
        id=new_id(),
        url=order.url,
        description=order.description,
        events=_each_once(order.events),
        secret=signing.new_secret(),
    )

    async def add(session: AsyncSession) -> Endpoint:
        # Those that come at once queue here for a moment, or each would take the last free place.
        await session.execute(select(Tenant.id).where(Tenant.id == caller.tenant_id).with_for_update(key_share=True))
        if len(await queries.endpoints(session, caller.tenant_id)) >= MOST:
            raise TooManyEndpoints
        audit(session, caller.actor, "endpoint.create", row.id, tenant_id=caller.tenant_id)
        return await session.merge(row)

    made = await _db(request).run(add)
    response.headers["Location"] = f"/v1/endpoints/{made.id}"
    return _with_secret(request, made)


@router.get(
    "/endpoints",
    operation_id="list_endpoints",
    summary="List endpoints",
    responses=problems(Unauthorized, Forbidden, Unavailable),
)
async def index(request: Request, caller: JobsReader) -> EndpointList:
    """All of them, newest first; there are at most twenty."""
    async with _db(request).reading_as(caller.tenant_id) as session:
        rows = await queries.endpoints(session, caller.tenant_id)
    return EndpointList(data=[_view(request, row) for row in rows])


@router.get(
    "/endpoints/{endpoint_id}",
    operation_id="get_endpoint",
    summary="Look at an endpoint",
    responses=problems(Unauthorized, Forbidden, NotFound, InvalidRequest, Unavailable),
)
async def show(request: Request, caller: JobsReader, endpoint_id: EndpointId) -> EndpointView:
    """Whether it is called, and since when nothing has got through, if so."""
    async with _db(request).reading_as(caller.tenant_id) as session:
        row = await _found(session, caller, endpoint_id)
    return _view(request, row)


@router.patch(
    "/endpoints/{endpoint_id}",
    operation_id="update_endpoint",
    summary="Change an endpoint",
    responses=problems(Unauthorized, Forbidden, NotFound, BodyTooLarge, InvalidRequest, Unavailable),
)
async def update(request: Request, caller: JobsWriter, endpoint_id: EndpointId, change: EndpointChange) -> EndpointView:
    """Disabling gives up what is still to be told there; after enabling it, `POST /v1/deliveries/replay` brings it."""
    if change.url is not None:
        check_url(request.app.state.callback_policy, change.url, "/url")

    async def apply(session: AsyncSession) -> Endpoint:
        row = await _found(session, caller, endpoint_id, lock=True)
        for name, value in change.model_dump(exclude_unset=True, exclude={"enabled", "events"}).items():
            if value is not None or name == "description":
                setattr(row, name, value)
        if change.events is not None:
            row.events = _each_once(change.events)
        if change.enabled:
            row.disabled_at = row.disabled_why = row.failing_since = row.warned_at = None
        await session.flush()
        if change.enabled is False:
            await outcomes.disable(session, caller.tenant_id, endpoint_id, Why.BY_CALLER)
        audit(session, caller.actor, "endpoint.change", endpoint_id, tenant_id=caller.tenant_id)
        await session.refresh(row)
        return row

    return _view(request, await _db(request).run(apply))


@router.delete(
    "/endpoints/{endpoint_id}",
    operation_id="delete_endpoint",
    summary="Delete an endpoint",
    status_code=204,
    responses=problems(Unauthorized, Forbidden, NotFound, InvalidRequest, Unavailable),
)
async def delete(request: Request, caller: JobsWriter, endpoint_id: EndpointId) -> Response:
    """It is called no more, and its secret is forgotten; what it was told stays in `GET /v1/deliveries`."""

    async def forget(session: AsyncSession) -> None:
        row = await _found(session, caller, endpoint_id, lock=True)
        await outcomes.disable(session, caller.tenant_id, endpoint_id, Why.DELETED)
        audit(session, caller.actor, "endpoint.delete", endpoint_id, tenant_id=caller.tenant_id)
        await session.refresh(row)
        row.deleted_at, row.secret = func.now(), signing.new_secret()
        row.old_secret = row.old_secret_until = None

    await _db(request).run(forget)
    return Response(status_code=204)


@router.post(
    "/endpoints/{endpoint_id}/rotate",
    operation_id="rotate_endpoint_secret",
    summary="Replace an endpoint's secret",
    responses=problems(Unauthorized, Forbidden, NotFound, BodyTooLarge, InvalidRequest, Unavailable),
)
async def rotate(
    request: Request, caller: JobsWriter, endpoint_id: EndpointId, rotation: SecretRotation
) -> EndpointWithSecret:
    """A new secret, shown this once. Until the overlap ends everything is signed with both, so nothing need stop."""

    async def replace(session: AsyncSession) -> Endpoint:
        row = await _found(session, caller, endpoint_id, lock=True)
        return await _rotated(session, caller, row, rotation)

    return _with_secret(request, await _db(request).run(replace))


@router.post(
    "/endpoints/{endpoint_id}/test",
    operation_id="test_endpoint",
    summary="Send a test",
    status_code=202,
    responses=problems(Unauthorized, Forbidden, NotFound, EndpointDisabled, InvalidRequest, Unavailable),
)
async def test(request: Request, response: Response, caller: JobsWriter, endpoint_id: EndpointId) -> DeliveryView:
    """An `endpoint.test` goes the way every callback goes; `GET /v1/deliveries/{id}` tells what came of it."""

    async def send(session: AsyncSession) -> DeliveryView:
        row = await _found(session, caller, endpoint_id)
        if row.disabled_at is not None:
            raise EndpointDisabled
        at = clock.now().isoformat().replace("+00:00", "Z")
        body = body_of(TEST, at, f'{{"endpoint_id":"{row.id}"}}')
        news = outbox.News(tenant_id=caller.tenant_id, listeners=[row.id], kind=TEST, body=body)
        (delivery_id,) = await outbox.add(session, [news])
        made = await queries.delivery(session, caller.tenant_id, delivery_id)
        assert made is not None, "it was just written"  # noqa: S101
        await session.refresh(made)
        return DeliveryView.of(made)

    delivery = await _db(request).run(send)
    request.app.state.announcer.announce()
    response.headers["Location"] = f"/v1/deliveries/{delivery.id}"
    return delivery


@router.get(
    "/callback-secret",
    operation_id="get_callback_secret",
    summary="Read the secret of jobs' callbacks",
    responses=problems(Unauthorized, Forbidden, Unavailable),
)
async def secret(request: Request, caller: JobsWriter) -> SecretView:
    """What signs the callbacks to the `callback_url`s that orders name; one for all of your jobs."""

    async def read(session: AsyncSession) -> Endpoint:
        await outbox.ensure_of_jobs(session, caller.tenant_id)
        return await queries.of_jobs(session, caller.tenant_id)

    return SecretView.of(await _db(request).run(read))


@router.post(
    "/callback-secret/rotate",
    operation_id="rotate_callback_secret",
    summary="Replace the secret of jobs' callbacks",
    responses=problems(Unauthorized, Forbidden, BodyTooLarge, InvalidRequest, Unavailable),
)
async def rotate_secret(request: Request, caller: JobsWriter, rotation: SecretRotation) -> SecretView:
    """A new one. Until the overlap ends everything is signed with both, so nothing need stop."""

    async def replace(session: AsyncSession) -> Endpoint:
        await outbox.ensure_of_jobs(session, caller.tenant_id)
        row = await queries.of_jobs(session, caller.tenant_id, lock=True)
        return await _rotated(session, caller, row, rotation)

    return SecretView.of(await _db(request).run(replace))


def check_url(policy: Policy, url: str, pointer: str) -> None:
    """Raises InvalidRequest, at *pointer*, if callbacks can't go to *url*."""
    fault = fault_of(policy, url)
    if fault is not None:
        raise InvalidRequest(errors=[Fault(pointer=pointer, code="not_callable", detail=fault)])


async def _found(session: AsyncSession, caller: Caller, endpoint_id: UUID, *, lock: bool = False) -> Endpoint:
    row = await queries.endpoint(session, caller.tenant_id, endpoint_id, lock=lock)
    if row is None:
        raise NotFound("No endpoint has this id.")
    return row


async def _rotated(session: AsyncSession, caller: Caller, row: Endpoint, rotation: SecretRotation) -> Endpoint:
    overlaps = rotation.overlap_s > 0
    row.old_secret = row.secret if overlaps else None
    row.old_secret_until = clock.now() + timedelta(seconds=rotation.overlap_s) if overlaps else None
    row.secret = signing.new_secret()
    audit(session, caller.actor, "endpoint.rotate", row.id, tenant_id=caller.tenant_id, overlap_s=rotation.overlap_s)
    await session.flush()
    return row


def _each_once(events: list[Any]) -> list[str]:
    return [str(event) for event in dict.fromkeys(events)]


def _view(request: Request, row: Endpoint) -> EndpointView:
    return EndpointView.of(row, request.app.state.disable_after_s)


def _with_secret(request: Request, row: Endpoint) -> EndpointWithSecret:
    return EndpointWithSecret.of(row, request.app.state.disable_after_s, secret=signing.shown(row.secret))


def _db(request: Request) -> Database:
    db: Database = request.app.state.db
    return db
