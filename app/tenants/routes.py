"""/v1/keys, /v1/tokens, GET /v1/admin/audit."""

from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy import select

from app import paging
from app.db import Database
from app.errors import BodyTooLarge, InvalidRequest, NotFound, Unavailable, problems
from app.tenants import minting
from app.tenants.auth import Admin, JobsWriter, KeysWriter, Unauthorized
from app.tenants.caller import Caller, Forbidden
from app.tenants.keys import NEEDED
from app.tenants.known import Known
from app.tenants.minting import KeyReplaced
from app.tenants.schemas import (
    AuditPage,
    AuditView,
    KeyOrder,
    KeyPage,
    KeyRotation,
    KeyView,
    NewKeyView,
    NewTokenView,
    TokenOrder,
    TokenPage,
    TokenView,
)
from app.tenants.tables import ApiKey, AuditEntry

router = APIRouter(prefix="/v1", tags=["Access"])

KeyId = Annotated[UUID, Path(description="The key's id, not its secret")]


@router.get(
    "/keys",
    operation_id="list_keys",
    summary="List keys",
    responses=problems(Unauthorized, Forbidden, InvalidRequest, Unavailable),
)
async def list_keys(
    request: Request, caller: KeysWriter, limit: paging.Limit = 20, cursor: paging.Cursor = None
) -> KeyPage:
    """Newest first; what they may do, whether they work and when they were last used, never the secrets."""
    wanted: list[Any] = [ApiKey.tenant_id == caller.tenant_id]
    if (before := paging.decode(cursor)) is not None:
        wanted.append(ApiKey.id < before)
    db: Database = request.app.state.db
    async with db.reading_as(caller.tenant_id) as session:
        newest = select(ApiKey).where(*wanted).order_by(ApiKey.id.desc()).limit(limit + 1)
        keys = (await session.scalars(newest)).all()
    shown, next_cursor = paging.cut(keys, limit)
    return KeyPage(data=[KeyView.of(key) for key in shown], next_cursor=next_cursor)


@router.post(
    "/keys",
    operation_id="create_key",
    summary="Make a key",
    status_code=201,
    responses=problems(Unauthorized, Forbidden, BodyTooLarge, InvalidRequest, Unavailable),
)
async def create_key(request: Request, caller: KeysWriter, order: KeyOrder) -> NewKeyView:
    """The secret is shown this once; only its hash is kept. A key can't make one that may do more than itself."""
    _within(caller, {scope.value for scope in order.scopes})
    made = await request.app.state.db.run(
        lambda session: minting.add_key(
            session,
            caller.tenant_id,
            name=order.name,
            scopes=set(order.scopes),
            expires_in=timedelta(seconds=order.expires_in_s) if order.expires_in_s is not None else None,
            requests_per_minute=order.requests_per_minute,
            actor=caller.actor,
        )
    )
    return NewKeyView.of(made.key, key=made.text)


@router.post(
    "/keys/{key_id}/rotate",
    operation_id="rotate_key",
    summary="Replace a key",
    status_code=201,
    responses=problems(Unauthorized, Forbidden, NotFound, KeyReplaced, BodyTooLarge, InvalidRequest, Unavailable),
)
async def rotate_key(request: Request, caller: KeysWriter, key_id: KeyId, rotation: KeyRotation) -> NewKeyView:
    """
    A new secret at once, with the same name, scopes, limit and span of life; the old one works until the overlap ends.
    """
    overlap = timedelta(seconds=rotation.overlap_s)
    db: Database = request.app.state.db
    async with db.reading_as(caller.tenant_id) as session:
        old = await session.get(ApiKey, (caller.tenant_id, key_id))
    if old is not None:
        _within(caller, set(old.scopes))
    made = await db.run(lambda session: minting.rotate_key(session, caller.tenant_id, key_id, overlap, caller.actor))
    if made is None:
        raise NotFound("No working key has this id.")
    _forget(request, key_id)
    return NewKeyView.of(made.key, key=made.text)


@router.delete(
    "/keys/{key_id}",
    operation_id="revoke_key",
    summary="Revoke a key",
    status_code=204,
    responses=problems(Unauthorized, Forbidden, NotFound, InvalidRequest, Unavailable),
)
async def revoke_key(request: Request, caller: KeysWriter, key_id: KeyId) -> Response:
    """
    It and the browser tokens made with it stop working for good: here at once, in other processes within 3 seconds.
    """
    name = await request.app.state.db.run(
        lambda session: minting.revoke_key(session, caller.tenant_id, key_id, caller.actor)
    )
    if name is None:
        raise NotFound("No key has this id.")
    _forget(request, key_id)
    return Response(status_code=204)


@router.post(
    "/tokens",
    operation_id="create_token",
    summary="Make a browser token",
    status_code=201,
    responses=problems(Unauthorized, Forbidden, BodyTooLarge, InvalidRequest, Unavailable),
)
async def create_token(request: Request, caller: JobsWriter, order: TokenOrder) -> NewTokenView:
    """
    Safe in a page: it lives for minutes, sees and orders jobs of one end user only, and does nothing but its actions.

    The price of every order made with it counts towards `max_spend`, also if the job costs nothing in the end. It
    ends early with the key it was made with.
    """
    _within(caller, {NEEDED[action].value for action in order.actions})
    token, text = await request.app.state.db.run(
        lambda session: minting.create_token(
            session,
            caller,
            ttl=timedelta(seconds=order.ttl_s),
            end_user=order.end_user,
            actions=order.actions,
            models=order.models,
            max_spend=None if order.max_spend is None else Decimal(order.max_spend),
        )
    )
    return NewTokenView.of(token, token=text)


@router.get(
    "/tokens",
    operation_id="list_tokens",
    summary="List browser tokens",
    responses=problems(Unauthorized, Forbidden, InvalidRequest, Unavailable),
)
async def list_tokens(
    request: Request,
    caller: JobsWriter,
    limit: paging.Limit = 20,
    cursor: paging.Cursor = None,
    end_user: Annotated[
        str | None, Query(max_length=200, pattern=r"^[^\x00]*$", description="Only those for this end user")
    ] = None,
) -> TokenPage:
    """Those that work, of all your keys, newest first: whom they are for and what was spent, never the secrets."""
    before = paging.decode(cursor)
    db: Database = request.app.state.db
    async with db.reading_as(caller.tenant_id) as session:
        tokens = await minting.live_tokens(session, caller.tenant_id, limit=limit + 1, before=before, end_user=end_user)
    shown, next_cursor = paging.cut(tokens, limit)
    return TokenPage(data=[TokenView.of(token) for token in shown], next_cursor=next_cursor)


@router.delete(
    "/tokens/{token_id}",
    operation_id="revoke_token",
    summary="Revoke a browser token",
    status_code=204,
    responses=problems(Unauthorized, Forbidden, NotFound, InvalidRequest, Unavailable),
)
async def revoke_token(request: Request, caller: JobsWriter, token_id: Annotated[UUID, Path()]) -> Response:
    """It orders nothing more from now on, and sees nothing more within 3 seconds. Asking again is safe."""
    known = await request.app.state.db.run(
        lambda session: minting.revoke_token(session, caller.tenant_id, token_id, caller.actor)
    )
    if not known:
        raise NotFound("No token has this id.")
    _forget(request, token_id)
    return Response(status_code=204)


@router.get(
    "/admin/audit",
    operation_id="list_audit_entries",
    summary="Read the audit log",
    responses=problems(Unauthorized, Forbidden, InvalidRequest, Unavailable),
)
async def list_audit_entries(
    request: Request,
    caller: Admin,
    limit: paging.Limit = 20,
    cursor: paging.Cursor = None,
    tenant_id: Annotated[UUID | None, Query(description="Only what concerns this tenant")] = None,
) -> AuditPage:
    """Who changed what, of all tenants, newest first. Entries never change, and stay until somebody deletes them."""
    wanted: list[Any] = []
    if (before := paging.decode(cursor)) is not None:
        wanted.append(AuditEntry.id < before)
    if tenant_id is not None:
        wanted.append(AuditEntry.tenant_id == tenant_id)
    db: Database = request.app.state.db
    async with db.session() as session:
        newest = select(AuditEntry).where(*wanted).order_by(AuditEntry.id.desc()).limit(limit + 1)
        entries = (await session.scalars(newest)).all()
    shown, next_cursor = paging.cut(entries, limit)
    return AuditPage(data=[AuditView.of(entry) for entry in shown], next_cursor=next_cursor)


def _within(caller: Caller, scopes: set[str]) -> None:
    """Raises Forbidden if *scopes* are more than the caller's own: nobody hands on what they don't have."""
    if lacking := scopes - caller.scopes:
        raise Forbidden(f"Your key lacks {', '.join(sorted(lacking))}, so it can't hand that on.")


def _forget(request: Request, id_: UUID) -> None:
    known: Known = request.app.state.known
    known.forget(id_)
