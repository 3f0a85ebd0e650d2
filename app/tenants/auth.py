"""Who is calling: the Authorization header of a request, turned into a Caller."""

import hmac
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer
from sqlalchemy import func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Database
from app.errors import AppError
from app.tenants.keys import Scope, digest
from app.tenants.tables import ApiKey

CHALLENGE = {"WWW-Authenticate": 'Bearer realm="callsheet"'}


class Unauthorized(AppError):
    """The request carries no valid API key; send `Authorization: Bearer <key>`."""

    status, code = 401, "unauthorized"


class Forbidden(AppError):
    """This key may not do that."""

    status, code = 403, "forbidden"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a request acts for, and what it may do."""

    tenant_id: UUID
    key_id: UUID
    scopes: frozenset[str]


bearer = HTTPBearer(
    scheme_name="ApiKey",
    description="A key of `callsheet keys create`. fal's own spelling, `Key <key>`, is taken too.",
    auto_error=False,
)


async def find(session: AsyncSession, text: str) -> Caller | None:
    """The caller that the key *text* stands for, or None if it is unknown, revoked or expired."""
    wanted = digest(text)
    key = await session.scalar(
        select(ApiKey).where(
            ApiKey.digest == wanted,
            ApiKey.revoked_at.is_(None),
            or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()),
        )
    )
    # The index compared bytes at its own pace; this comparison's time tells nothing.
    if key is None or not hmac.compare_digest(key.digest, wanted):
        return None
    return Caller(key.tenant_id, key.id, frozenset(key.scopes))


async def still_good(session: AsyncSession, keys: Collection[tuple[UUID, UUID]]) -> set[UUID]:
    """The ids of those of *keys*, each a tenant and a key's id, that are neither revoked nor expired."""
    found = select(ApiKey.id).where(
        tuple_(ApiKey.tenant_id, ApiKey.id).in_(keys),
        ApiKey.revoked_at.is_(None),
        or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()),
    )
    return set(await session.scalars(found))


def needs(scope: Scope) -> Callable[..., Coroutine[Any, Any, Caller]]:
    """A dependency: the caller, if its key has *scope*; else 401 or 403."""

    async def caller(request: Request, _documented: Annotated[object, Security(bearer)]) -> Caller:
        kind, _, text = request.headers.get("authorization", "").partition(" ")
        if kind.lower() not in {"bearer", "key"} or not text.strip():
            raise Unauthorized(headers=CHALLENGE)
        db: Database = request.app.state.db
        async with db.session() as session:
            found = await find(session, text.strip())
        if found is None:
            raise Unauthorized(headers=CHALLENGE)
        if scope not in found.scopes:
            raise Forbidden(f"It lacks the scope {scope}.")
        return found

    return caller


JobsReader = Annotated[Caller, Depends(needs(Scope.JOBS_READ))]
JobsWriter = Annotated[Caller, Depends(needs(Scope.JOBS_WRITE))]
BillingReader = Annotated[Caller, Depends(needs(Scope.BILLING_READ))]
Admin = Annotated[Caller, Depends(needs(Scope.ADMIN))]
