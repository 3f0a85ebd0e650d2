"""callsheet keys create, list, revoke."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

from cyclopts import Parameter
from rich import box
from rich.table import Table
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.cli.database import in_database, tenant_named
from app.cli.tables import show_table
from app.cli.trouble import Trouble
from app.tenants import minting
from app.tenants.keys import Scope
from app.tenants.tables import ApiKey, Tenant

LONGEST_DAYS: Final = 3650
USUAL: Final = tuple(scope for scope in Scope if scope is not Scope.ADMIN)
"""What a key may do unless told: everything of its tenant's own, and nothing of others'."""


def create(
    name: str,
    /,
    *,
    tenant: str = "default",
    scope: Annotated[tuple[Scope, ...], Parameter(negative="")] = (),
    expires_in_days: Annotated[int | None, Parameter(name=["--expires-in-days"])] = None,
) -> None:
    """
    Make a key and print it, this once.

    Parameters
    ----------
    name
        What the key is for, to tell it from others.
    tenant
        Whose key it is.
    scope
        What it may do; give it several times for several, leave it out for all but admin.
    expires_in_days
        Days until it stops working; leave it out for never.
    """
    if expires_in_days is not None and not 1 <= expires_in_days <= LONGEST_DAYS:
        raise Trouble(f"--expires-in-days: must be between 1 and {LONGEST_DAYS}")

    async def make(session: AsyncSession) -> str:
        owner = await tenant_named(session, tenant)
        expires_in = timedelta(days=expires_in_days) if expires_in_days is not None else None
        return await minting.create_key(session, owner.id, name=name, scopes=scope or USUAL, expires_in=expires_in)

    print(in_database(make))


def show() -> None:
    """List all keys: whose, what they may do, and whether they still work; never the keys themselves."""

    async def read(session: AsyncSession) -> list[tuple[ApiKey, str]]:
        newest = select(ApiKey, Tenant.name).join(Tenant, Tenant.id == ApiKey.tenant_id).order_by(ApiKey.id.desc())
        return [(key, tenant) for key, tenant in (await session.execute(newest)).all()]

    table = Table("id", "key", "name", "tenant", "scopes", "created", "state", box=box.SIMPLE_HEAD)
    for key, tenant in in_database(read):
        created = f"{key.created_at:%Y-%m-%d}"
        table.add_row(str(key.id), f"{key.prefix}…", key.name, tenant, " ".join(key.scopes), created, _state(key))
    show_table(table)


def revoke(key_id: UUID, /) -> None:
    """
    Stop a key from working, at once and for good.

    Parameters
    ----------
    key_id
        The key's id, from `callsheet keys list`.
    """

    async def stop(session: AsyncSession) -> str | None:
        once = update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
        return await session.scalar(once.values(revoked_at=func.now()).returning(ApiKey.name))

    name = in_database(stop)
    if name is None:
        raise Trouble(f"There is no working key {key_id}.")
    print(f"Revoked: {name}")


def _state(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
        return "expired"
    return f"until {key.expires_at:%Y-%m-%d}" if key.expires_at is not None else "works"
