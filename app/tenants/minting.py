"""New tenants, keys and tokens, as rows; and how keys and tokens end."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import new_id
from app.errors import AppError
from app.tenants.audit import audit
from app.tenants.auth import WORKS
from app.tenants.caller import Caller
from app.tenants.keys import TOKEN_PREFIX, Action, Scope, mint
from app.tenants.tables import ApiKey, BrowserToken, Tenant


class TokenSpent(AppError):
    """What this token may still spend doesn't cover the price of this video."""

    status, code = 402, "token_spend_exceeded"


class TokenOver(AppError):
    """This token has expired or was revoked meanwhile; get a new one."""

    status, code = 401, "token_over"


class KeyReplaced(AppError):
    """This key was rotated before; rotate the one that came of it, or make a new one."""

    status, code = 409, "key_replaced"


class Made(NamedTuple):
    """A new key and its text, shown this once."""

    key: ApiKey
    text: str


async def ensure_tenant(session: AsyncSession, name: str) -> UUID:
    """The id of the tenant called *name*, made if there is none."""
    await session.execute(insert(Tenant).values(id=new_id(), name=name).on_conflict_do_nothing())
    return (await session.scalars(select(Tenant.id).where(Tenant.name == name))).one()


async def create_key(
    session: AsyncSession,
    tenant_id: UUID,
    *,
    name: str,
    scopes: Iterable[Scope] = Scope,
    expires_in: timedelta | None = None,
) -> str:
    """The text of a new key, shown this once."""
    made = await add_key(session, tenant_id, name=name, scopes=scopes, expires_in=expires_in)
    return made.text


async def add_key(
    session: AsyncSession,
    tenant_id: UUID,
    *,
    name: str,
    scopes: Iterable[str],
    expires_in: timedelta | None = None,
    requests_per_minute: int | None = None,
    actor: str | None = None,
) -> Made:
    """A new key; *actor*, if given, is noted to have made it."""
    minted = mint()
    key = ApiKey(
        tenant_id=tenant_id,
        id=new_id(),
        name=name,
        prefix=minted.prefix,
        digest=minted.digest,
        scopes=sorted(scopes),
        expires_at=func.now() + expires_in if expires_in is not None else None,
        requests_per_minute=requests_per_minute,
    )
    session.add(key)
    await session.flush()
    await session.refresh(key)
    if actor is not None:
        audit(session, actor, "key.create", key.id, tenant_id=tenant_id, name=name, scopes=key.scopes)
    return Made(key, minted.text)


async def rotate_key(
    session: AsyncSession, tenant_id: UUID, key_id: UUID, overlap: timedelta, actor: str
) -> Made | None:
    """
    A new key in place of a working one, which works for *overlap* more; None if there is none.

    The new one may do the same, and lives as long as the old one was meant to. Raises KeyReplaced the second time.
    """
    mine = select(ApiKey).where(ApiKey.tenant_id == tenant_id, ApiKey.id == key_id, WORKS)
    old = await session.scalar(mine.with_for_update())
    if old is None:
        return None
    if old.replaced_by is not None:
        raise KeyReplaced(f"It was replaced by the key {old.replaced_by}.")
    made = await add_key(
        session,
        tenant_id,
        name=old.name,
        scopes=old.scopes,
        expires_in=old.expires_at - old.created_at if old.expires_at is not None else None,
        requests_per_minute=old.requests_per_minute,
    )
    old.replaced_by = made.key.id
    old.expires_at = func.least(old.expires_at, func.now() + overlap)
    overlap_s = overlap.total_seconds()
    audit(session, actor, "key.rotate", key_id, tenant_id=tenant_id, new_key=str(made.key.id), overlap_s=overlap_s)
    await session.flush()
    return made


async def revoke_key(session: AsyncSession, tenant_id: UUID, key_id: UUID, actor: str) -> str | None:
    """Stop a key and its tokens from working, for good; its name, or None if there is none. Repeats change nothing."""
    mine = select(ApiKey).where(ApiKey.tenant_id == tenant_id, ApiKey.id == key_id)
    key = await session.scalar(mine.with_for_update())
    if key is not None and key.revoked_at is None:
        key.revoked_at = func.now()
        audit(session, actor, "key.revoke", key_id, tenant_id=tenant_id)
    return key.name if key is not None else None


async def create_token(
    session: AsyncSession,
    caller: Caller,
    *,
    ttl: timedelta,
    end_user: str,
    actions: Iterable[Action],
    models: Iterable[str] | None,
    max_spend: Decimal | None,
) -> tuple[BrowserToken, str]:
    """A new token of *caller*'s key, and its text, shown this once."""
    minted = mint(TOKEN_PREFIX)
    token = BrowserToken(
        tenant_id=caller.tenant_id,
        id=new_id(),
        api_key_id=caller.key_id,
        digest=minted.digest,
        end_user=end_user,
        actions=sorted(set(actions)),
        models=None if models is None else sorted(set(models)),
        max_spend=max_spend,
        expires_at=func.now() + ttl,
    )
    session.add(token)
    await session.flush()
    await session.refresh(token)
    return token, minted.text


async def live_tokens(
    session: AsyncSession, tenant_id: UUID, *, limit: int, before: UUID | None = None, end_user: str | None = None
) -> Sequence[BrowserToken]:
    """Up to *limit* tokens of the tenant that work, newest first, older than the token *before*."""
    wanted: list[ColumnElement[bool]] = [
        BrowserToken.tenant_id == tenant_id,
        BrowserToken.revoked_at.is_(None),
        BrowserToken.expires_at > func.now(),
        WORKS,
    ]
    if before is not None:
        wanted.append(BrowserToken.id < before)
    if end_user is not None:
        wanted.append(BrowserToken.end_user == end_user)
    of_key = and_(ApiKey.tenant_id == BrowserToken.tenant_id, ApiKey.id == BrowserToken.api_key_id)
    newest = select(BrowserToken).join(ApiKey, of_key).where(*wanted).order_by(BrowserToken.id.desc())
    return (await session.scalars(newest.limit(limit))).all()


async def revoke_token(session: AsyncSession, tenant_id: UUID, token_id: UUID, actor: str) -> bool:
    """Stop a token from working, for good; False if there is none. Repeats change nothing."""
    mine = select(BrowserToken).where(BrowserToken.tenant_id == tenant_id, BrowserToken.id == token_id)
    token = await session.scalar(mine.with_for_update())
    if token is not None and token.revoked_at is None:
        token.revoked_at = func.now()
        audit(session, actor, "token.revoke", token_id, tenant_id=tenant_id)
    return token is not None


async def spend(session: AsyncSession, caller: Caller, amount: Decimal) -> None:
    """
    Count *amount* as ordered with the caller's token; does nothing for a key.

    The bound is part of the UPDATE, in the transaction that accepts the order, so a burst can't walk past it.
    What a job gives back isn't given back here. Raises TokenSpent, or TokenOver if the token has ended.
    """
    if caller.token is None:
        return
    mine = (BrowserToken.tenant_id == caller.tenant_id, BrowserToken.id == caller.token.token_id)
    works = (BrowserToken.revoked_at.is_(None), BrowserToken.expires_at > func.now())
    covered = or_(BrowserToken.max_spend.is_(None), BrowserToken.spent + amount <= BrowserToken.max_spend)
    counted = await session.scalar(
        update(BrowserToken)
        .where(*mine, *works, covered)
        .values(spent=BrowserToken.spent + amount)
        .returning(BrowserToken.id)
        .execution_options(synchronize_session=False)
    )
    if counted is None:
        still_works = await session.scalar(select(BrowserToken.id).where(*mine, *works))
        raise TokenSpent if still_works else TokenOver
