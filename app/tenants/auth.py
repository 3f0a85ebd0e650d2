"""Who is calling: the Authorization header of a request, turned into a Caller."""

import hmac
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer
from sqlalchemy import ARRAY, ColumnElement, LargeBinary, and_, any_, bindparam, func, or_, select, tuple_
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Database
from app.errors import AppError
from app.gather import Gatherer
from app.tenants.caller import Caller, Forbidden, Narrowing
from app.tenants.keys import TOKEN_PREFIX, Action, Scope, digest
from app.tenants.known import Known
from app.tenants.tables import ApiKey, BrowserToken

CHALLENGE = {"WWW-Authenticate": 'Bearer realm="callsheet"'}

# A key that works: a token lives no longer than the key it was made with.
WORKS = and_(ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()))
KEYS = select(
    ApiKey.tenant_id, ApiKey.id, ApiKey.digest, ApiKey.scopes, ApiKey.expires_at, ApiKey.requests_per_minute
).where(WORKS)
# As text, for a connection that is the driver's own.
FIND_KEYS = str(
    KEYS.where(ApiKey.digest == any_(bindparam("digests", type_=ARRAY(LargeBinary)))).compile(
        dialect=psycopg.dialect()  # type: ignore[no-untyped-call]
    )
)


class Unauthorized(AppError):
    """The request carries no valid API key; send `Authorization: Bearer <key>`."""

    status, code = 401, "unauthorized"


class TooManyRequests(AppError):
    """Too many requests; Retry-After says in how many seconds the next one is taken."""

    status, code = 429, "too_many_requests"


bearer = HTTPBearer(
    scheme_name="ApiKey",
    description=(
        "A key of `POST /v1/keys` or `callsheet keys create`. fal's own spelling, `Key <key>`, is taken too. Never"
        " in an address: those end up in logs and histories."
    ),
    auto_error=False,
)
browser_bearer = HTTPBearer(
    scheme_name="BrowserToken",
    description=(
        "A token of `POST /v1/tokens`, safe in a page: it lives for minutes, for one end user, within its models,"
        " actions and spend. Operations that don't name it refuse it."
    ),
    auto_error=False,
)


async def find(session: AsyncSession, text: str) -> Caller | None:
    """The caller that the key or token *text* stands for, or None if it is unknown, revoked or expired."""
    wanted = digest(text)
    if text.startswith(TOKEN_PREFIX):
        return await _of_token(session, BrowserToken.digest == wanted, to_be=wanted)
    found = await session.execute(KEYS.where(ApiKey.digest == wanted))
    return _of_key(found.one_or_none(), to_be=wanted)


async def find_keys(db: Database, known: Known, wanted: Sequence[bytes]) -> list[Caller | None]:
    """The callers that the digests *wanted* stand for, and, with the same statement, those *known* ones that lapse."""
    every, forgotten = [*wanted, *known.lapsing()], known.forgotten
    found = await db.run_one(lambda ask: ask(FIND_KEYS, {"digests": every}))
    keys = {key.digest: key for key in found}
    callers = [_of_key(keys.get(each), to_be=each) for each in every]
    # What was revoked here meanwhile is forgotten, and stays so.
    if known.forgotten == forgotten:
        for each, caller in zip(every, callers, strict=True):
            known.remember(each, caller)
    return callers[: len(wanted)]


def finder(db: Database, known: Known) -> Callable[[str, bytes], Awaitable[Caller | None]]:
    """`find`, for a whole process: those who come with keys at the same time are looked for together."""
    # One after the other: two would ask for half as many keys at a time, in twice as many questions.
    together = Gatherer(partial(find_keys, db, known), writers=1)

    async def found(text: str, wanted: bytes) -> Caller | None:
        if not text.startswith(TOKEN_PREFIX):
            return await together(wanted)
        forgotten = known.forgotten
        async with db.session() as session:
            caller = await find(session, text)
        if known.forgotten == forgotten:
            known.remember(wanted, caller)
        return caller

    return found


async def again(session: AsyncSession, tenant_id: UUID, key_id: UUID, token_id: UUID | None) -> Caller | None:
    """A caller found before, by the ids of their key and token; None if one of them was revoked or has expired."""
    if token_id is not None:
        return await _of_token(session, BrowserToken.tenant_id == tenant_id, BrowserToken.id == token_id)
    found = await session.execute(KEYS.where(ApiKey.tenant_id == tenant_id, ApiKey.id == key_id))
    return _of_key(found.one_or_none())


def _is(found: bytes, to_be: bytes | None) -> bool:
    # The index compared bytes at its own pace; this comparison's time tells nothing.
    return to_be is None or hmac.compare_digest(found, to_be)


def _of_key(key: Any | None, *, to_be: bytes | None = None) -> Caller | None:
    if key is None or not _is(key.digest, to_be):
        return None
    return Caller(
        key.tenant_id,
        key.id,
        frozenset(key.scopes),
        expires_at=key.expires_at,
        requests_per_minute=key.requests_per_minute,
    )


async def _of_token(session: AsyncSession, *which: ColumnElement[bool], to_be: bytes | None = None) -> Caller | None:
    found = await session.execute(
        select(BrowserToken, ApiKey.scopes, ApiKey.expires_at)
        .join(ApiKey, and_(ApiKey.tenant_id == BrowserToken.tenant_id, ApiKey.id == BrowserToken.api_key_id))
        .where(
            *which,
            BrowserToken.revoked_at.is_(None),
            BrowserToken.expires_at > func.now(),
            WORKS,
        )
    )
    row = found.one_or_none()
    if row is None or not _is(row[0].digest, to_be):
        return None
    token, scopes, key_expires_at = row
    narrowing = Narrowing(
        token.id,
        token.end_user,
        frozenset(Action(action) for action in token.actions),
        models=None if token.models is None else frozenset(token.models),
        max_spend=token.max_spend,
    )
    expires_at = min(filter(None, (token.expires_at, key_expires_at)))
    return Caller(token.tenant_id, token.api_key_id, frozenset(scopes), token=narrowing, expires_at=expires_at)


async def caller_of(request: Request) -> Caller:
    """Who calls. Raises Unauthorized, or TooManyRequests for one who asks, or guesses, too often."""
    caller = await known_caller(request)
    if caller is None:
        guess = request.app.state.known.failed(request.client.host if request.client else "")
        if not guess.granted:
            raise TooManyRequests(headers={"Retry-After": str(guess.wait_s)})
        raise Unauthorized(headers=CHALLENGE)
    return caller


async def known_caller(request: Request) -> Caller | None:
    """Who calls, or None if nobody knows them. Raises TooManyRequests for one who asks too often."""
    # A door may have asked before it left the request to its route; it counts once. Who isn't known is counted by the
    # route alone: only there is it told from whom a proxy passed the request on.
    caller: Caller | None = request.scope.get("caller")
    if caller is None:
        caller = await _found(request)
        if caller is not None:
            request.scope["caller"] = caller
            _count(request, caller)
    return caller


async def _found(request: Request) -> Caller | None:
    known: Known = request.app.state.known
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    text = text.strip()
    if kind.lower() not in {"bearer", "key"} or not text:
        return None
    key = digest(text)
    found: Caller | None = known.look(key)
    if not found and not known.is_stranger(key):
        found = await request.app.state.finding(text, key)
    return found


def _count(request: Request, caller: Caller) -> None:
    allowance = request.app.state.known.asked(caller)
    if allowance is not None:
        # Said by the edge on every answer, whether a route or an error makes it.
        request.scope.setdefault("also_told", {}).update(allowance.headers())
        if not allowance.granted:
            raise TooManyRequests(headers={"Retry-After": str(allowance.wait_s)})


async def still_good(session: AsyncSession, keys: Collection[tuple[UUID, UUID]]) -> set[UUID]:
    """The ids of those of *keys*, each a tenant and a key's id, that are neither revoked nor expired."""
    found = select(ApiKey.id).where(tuple_(ApiKey.tenant_id, ApiKey.id).in_(keys), WORKS)
    return set(await session.scalars(found))


async def tokens_still_good(session: AsyncSession, tokens: Collection[tuple[UUID, UUID]]) -> set[UUID]:
    """The ids of those of *tokens*, each a tenant and a token's id, that are neither revoked nor expired."""
    found = select(BrowserToken.id).where(
        tuple_(BrowserToken.tenant_id, BrowserToken.id).in_(tokens),
        BrowserToken.revoked_at.is_(None),
        BrowserToken.expires_at > func.now(),
    )
    return set(await session.scalars(found))


def permitted(found: Caller, scope: Scope, action: Action | None) -> Caller:
    """
    *found*, if its key has *scope* and its token, should it be one, *action*; else raises Forbidden.

    Without an *action*, browser tokens are refused.
    """
    if found.token is not None and action is None:
        raise Forbidden("A browser token may not do that.")
    if found.token is not None and action not in found.token.actions:
        raise Forbidden(f"This token lacks the action {action}.")
    if scope not in found.scopes:
        raise Forbidden(f"It lacks the scope {scope}.")
    return found


def needs(scope: Scope) -> Callable[..., Coroutine[Any, Any, Caller]]:
    """A dependency: the caller, if its key has *scope*; else 401 or 403. Browser tokens are refused."""

    async def caller(request: Request, _documented: Annotated[object, Security(bearer)]) -> Caller:
        return permitted(await caller_of(request), scope, None)

    return caller


def allows(scope: Scope, action: Action) -> Callable[..., Coroutine[Any, Any, Caller]]:
    """
    A dependency: the caller, if its key has *scope* and its token, should it be one, *action*; else 401 or 403.

    A route that takes tokens answers for their narrowing: see `Caller`.
    """

    async def caller(
        request: Request,
        _documented: Annotated[object, Security(bearer)],
        _also: Annotated[object, Security(browser_bearer)],
    ) -> Caller:
        return permitted(await caller_of(request), scope, action)

    return caller


# Keys only.
JobsReader = Annotated[Caller, Depends(needs(Scope.JOBS_READ))]
JobsWriter = Annotated[Caller, Depends(needs(Scope.JOBS_WRITE))]
BillingReader = Annotated[Caller, Depends(needs(Scope.BILLING_READ))]
KeysWriter = Annotated[Caller, Depends(needs(Scope.KEYS_WRITE))]
Admin = Annotated[Caller, Depends(needs(Scope.ADMIN))]

# Keys, and browser tokens with the action.
MayAsk = Annotated[Caller, Depends(allows(Scope.JOBS_READ, Action.CREATE))]
MayCreate = Annotated[Caller, Depends(allows(Scope.JOBS_WRITE, Action.CREATE))]
MayRead = Annotated[Caller, Depends(allows(Scope.JOBS_READ, Action.READ))]
MayCancel = Annotated[Caller, Depends(allows(Scope.JOBS_WRITE, Action.CANCEL))]
MayFollow = Annotated[Caller, Depends(allows(Scope.JOBS_READ, Action.EVENTS))]
MayUpload = Annotated[Caller, Depends(allows(Scope.JOBS_WRITE, Action.FILES))]
