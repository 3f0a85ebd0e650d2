"""Reads: an account, a page of the ledger."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.tables import Account, Kind, LedgerEntry


async def account(session: AsyncSession, tenant_id: UUID) -> Account:
    """The tenant's account, which each has."""
    return (await session.scalars(select(Account).where(Account.tenant_id == tenant_id))).one()


async def page(
    session: AsyncSession,
    tenant_id: UUID,
    *,
    limit: int,
    before: UUID | None = None,
    kind: Kind | None = None,
    job_id: UUID | None = None,
) -> Sequence[LedgerEntry]:
    """Up to *limit* of the tenant's entries, newest first, older than the entry *before*."""
    wanted: list[Any] = [LedgerEntry.tenant_id == tenant_id]
    if before is not None:
        wanted.append(LedgerEntry.id < before)
    if kind is not None:
        # Part of the statement: only then can Postgres see that the index over the rare kinds has them all.
        wanted.append(LedgerEntry.kind == literal(str(kind), literal_execute=True))
    if job_id is not None:
        wanted.append(LedgerEntry.job_id == job_id)
    return (
        await session.scalars(select(LedgerEntry).where(*wanted).order_by(LedgerEntry.id.desc()).limit(limit))
    ).all()
