"""New tenants and keys, as rows."""

from collections.abc import Iterable
from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import new_id
from app.tenants.keys import Scope, mint
from app.tenants.tables import ApiKey, Tenant


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
    key = mint()
    session.add(
        ApiKey(
            tenant_id=tenant_id,
            name=name,
            prefix=key.prefix,
            digest=key.digest,
            scopes=sorted(scopes),
            expires_at=func.now() + expires_in if expires_in is not None else None,
        )
    )
    await session.flush()
    return key.text
