"""callsheet audit: who changed what."""

from collections.abc import Sequence

from rich import box
from rich.table import Table
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.cli.database import in_database, tenant_named
from app.cli.tables import show_table
from app.cli.trouble import Trouble
from app.tenants.tables import AuditEntry


def audit(*, tenant: str | None = None, limit: int = 50) -> None:
    """
    Show who changed what, newest first.

    Parameters
    ----------
    tenant
        Only what concerns this tenant.
    limit
        How many entries.
    """
    if not 1 <= limit <= 10_000:
        raise Trouble("--limit: must be between 1 and 10000")

    async def read(session: AsyncSession) -> Sequence[AuditEntry]:
        newest = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
        if tenant is not None:
            newest = newest.where(AuditEntry.tenant_id == (await tenant_named(session, tenant)).id)
        return (await session.scalars(newest)).all()

    table = Table("when", "who", "did", "to", "facts", box=box.SIMPLE_HEAD)
    for entry in in_database(read):
        facts = " ".join(f"{name}={value}" for name, value in entry.facts.items() if value is not None)
        table.add_row(f"{entry.created_at:%Y-%m-%d %H:%M:%S}", entry.actor, entry.action, entry.subject, facts)
    show_table(table)
