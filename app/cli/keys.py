"""callsheet keys create, list, rotate, revoke."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

from cyclopts import Parameter
from rich import box
from rich.table import Table
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.cli.database import in_database, tenant_named
from app.cli.tables import show_table
from app.cli.trouble import Trouble
from app.tenants import minting
from app.tenants.audit import operator
from app.tenants.keys import Scope
from app.tenants.tables import ApiKey, Tenant

LONGEST_DAYS: Final = 3650
LONGEST_OVERLAP_HOURS: Final = 720
USUAL: Final = (Scope.JOBS_READ, Scope.JOBS_WRITE, Scope.BILLING_READ)
"""What a key may do unless told: its tenant's work, but nothing of other tenants, and no making of more keys."""


def create(
    name: str,
    /,
    *,
    tenant: str = "default",
    scope: Annotated[tuple[Scope, ...], Parameter(negative="")] = (),
    expires_in_days: Annotated[int | None, Parameter(name=["--expires-in-days"])] = None,
    requests_per_minute: int | None = None,
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
        What it may do; give it several times for several, leave it out for jobs and billing.
    expires_in_days
        Days until it stops working; leave it out for never.
    requests_per_minute
        Its own limit, instead of the one for all keys.
    """
    if expires_in_days is not None and not 1 <= expires_in_days <= LONGEST_DAYS:
        raise Trouble(f"--expires-in-days: must be between 1 and {LONGEST_DAYS}")

    if requests_per_minute is not None and requests_per_minute < 1:
        raise Trouble("--requests-per-minute: must be 1 or more")

    async def make(session: AsyncSession) -> str:
        owner = await tenant_named(session, tenant)
        expires_in = timedelta(days=expires_in_days) if expires_in_days is not None else None
        made = await minting.add_key(
            session,
            owner.id,
            name=name,
            scopes=scope or USUAL,
            expires_in=expires_in,
            requests_per_minute=requests_per_minute,
            actor=operator(),
        )
        return made.text

    print(in_database(make))


def show() -> None:
    """List all keys: whose, what they may do, and whether they still work; never the keys themselves."""

    async def read(session: AsyncSession) -> list[tuple[ApiKey, str]]:
        newest = select(ApiKey, Tenant.name).join(Tenant, Tenant.id == ApiKey.tenant_id).order_by(ApiKey.id.desc())
        return [(key, tenant) for key, tenant in (await session.execute(newest)).all()]

    table = Table("id", "key", "name", "tenant", "scopes", "created", "state", "last used", box=box.SIMPLE_HEAD)
    for key, tenant in in_database(read):
        created = f"{key.created_at:%Y-%m-%d}"
        used = f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at is not None else "never"
        table.add_row(str(key.id), f"{key.prefix}…", key.name, tenant, " ".join(key.scopes), created, _state(key), used)
    show_table(table)


def rotate(key_id: UUID, /, *, overlap_hours: int = 24) -> None:
    """
    Make a key in place of another and print it, this once; the old one works until the overlap ends.

    Parameters
    ----------
    key_id
        The old key's id, from `callsheet keys list`.
    overlap_hours
        Hours for which the old key still works.
    """
    if not 0 <= overlap_hours <= LONGEST_OVERLAP_HOURS:
        raise Trouble(f"--overlap-hours: must be between 0 and {LONGEST_OVERLAP_HOURS}")

    async def replace(session: AsyncSession) -> str:
        owner = await session.scalar(select(ApiKey.tenant_id).where(ApiKey.id == key_id))
        overlap = timedelta(hours=overlap_hours)
        try:
            made = owner and await minting.rotate_key(session, owner, key_id, overlap, operator())
        except minting.KeyReplaced as error:
            raise Trouble(f"{error.title()} {error.detail}") from None
        if not made:
            raise Trouble(f"There is no working key {key_id}.")
        return made.text

    print(in_database(replace))


def revoke(key_id: UUID, /) -> None:
    """
    Stop a key, and the browser tokens made with it, from working, within 3 seconds and for good.

    Parameters
    ----------
    key_id
        The key's id, from `callsheet keys list`.
    """

    async def stop(session: AsyncSession) -> str | None:
        owner = await session.scalar(select(ApiKey.tenant_id).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None)))
        return await minting.revoke_key(session, owner, key_id, operator()) if owner is not None else None

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
