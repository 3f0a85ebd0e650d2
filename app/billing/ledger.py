"""
The ledger: deposit, charge, release; each one entry, and the balances that follow from it.

A hold is made with its job, by `app.jobs.accepting`.
"""

from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.tables import Account, Kind, LedgerEntry, Side
from app.db import new_id
from app.errors import AppError


class InsufficientFunds(AppError):
    """The balance and credit limit don't cover the price of this video."""

    status, code = 402, "insufficient_funds"


async def open_account(session: AsyncSession, tenant_id: UUID, *, credit_limit: Decimal | None = None) -> None:
    """Open *tenant_id*'s account; no *credit_limit* means it may owe without limit."""
    await session.execute(
        insert(Account).values(tenant_id=tenant_id, credit_limit=credit_limit).on_conflict_do_nothing()
    )


async def deposit(session: AsyncSession, tenant_id: UUID, amount: Decimal, note: str) -> LedgerEntry:
    """Put *amount* into the account."""
    return await _enter(session, tenant_id, Kind.DEPOSIT, Side.OUTSIDE, Side.AVAILABLE, amount, note=note)


async def charge(session: AsyncSession, tenant_id: UUID, job_id: UUID, amount: Decimal) -> None:
    """Charge *amount* of what is held for a job, and give back the rest."""
    held = await _held(session, tenant_id, job_id)
    of: dict[str, Any] = {"job_id": job_id, "hold_amount": held}
    await _enter(session, tenant_id, Kind.CHARGE, Side.HELD, Side.SPENT, amount, **of)
    if amount < held:
        rest = held - amount
        await _enter(session, tenant_id, Kind.RELEASE, Side.HELD, Side.AVAILABLE, rest, charge_amount=amount, **of)


async def release(session: AsyncSession, tenant_id: UUID, job_id: UUID) -> None:
    """Give back all that is held for a job."""
    held = await _held(session, tenant_id, job_id)
    of: dict[str, Any] = {"job_id": job_id, "hold_amount": held}
    await _enter(session, tenant_id, Kind.RELEASE, Side.HELD, Side.AVAILABLE, held, **of)


async def _held(session: AsyncSession, tenant_id: UUID, job_id: UUID) -> Decimal:
    amount = select(LedgerEntry.amount).where(
        LedgerEntry.tenant_id == tenant_id, LedgerEntry.job_id == job_id, LedgerEntry.kind == Kind.HOLD
    )
    return (await session.scalars(amount)).one()


async def _enter(
    session: AsyncSession,
    tenant_id: UUID,
    kind: Kind,
    from_side: Side,
    to_side: Side,
    amount: Decimal,
    **of: Any,
) -> LedgerEntry:
    entry = LedgerEntry(
        tenant_id=tenant_id, id=new_id(), kind=kind, from_side=from_side, to_side=to_side, amount=amount, **of
    )
    changes = {
        side: getattr(Account, side) + change
        for side, change in ((from_side, -amount), (to_side, amount))
        if side is not Side.OUTSIDE
    }
    await session.execute(
        update(Account)
        .where(Account.tenant_id == tenant_id)
        .values(changes)
        .execution_options(synchronize_session=False)
    )
    session.add(entry)
    await session.flush()
    return entry
