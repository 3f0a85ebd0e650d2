"""callsheet tenants create, list, deposit, limit."""

import re
from decimal import Decimal
from typing import Final

from rich import box
from rich.table import Table
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app import money
from app.billing import ledger
from app.billing.tables import Account
from app.cli.database import in_database, tenant_named
from app.cli.tables import show_table
from app.cli.trouble import Trouble
from app.tenants import minting
from app.tenants.audit import audit, operator
from app.tenants.tables import Tenant

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def create(name: str, /, *, credit_limit: str | None = None) -> None:
    """
    Make a tenant with an account of its own.

    Parameters
    ----------
    name
        Short name: small letters, digits, - and _.
    credit_limit
        How far it may go below zero, in USD; 0 for prepaid only, leave it out for no limit.
    """
    limit = _amount("--credit-limit", credit_limit) if credit_limit is not None else None
    if not NAME.fullmatch(name):
        raise Trouble("name: must be small letters, digits, - and _, beginning with a letter or digit, at most 63")

    async def make(session: AsyncSession) -> None:
        if await session.scalar(select(Tenant.id).where(Tenant.name == name)) is not None:
            raise Trouble(f"There is a tenant {name} already.")
        tenant_id = await minting.ensure_tenant(session, name)
        await ledger.open_account(session, tenant_id, credit_limit=limit)
        audit(session, operator(), "tenant.create", name, tenant_id=tenant_id, credit_limit=credit_limit)

    in_database(make)
    print(f"Tenant {name} is there; make it a key with `callsheet keys create NAME --tenant {name}`.")


def show() -> None:
    """List all tenants with their balances, in USD."""

    async def read(session: AsyncSession) -> list[tuple[Tenant, Account]]:
        by_name = select(Tenant, Account).join(Account, Account.tenant_id == Tenant.id).order_by(Tenant.name)
        return [(tenant, account) for tenant, account in (await session.execute(by_name)).all()]

    table = Table("tenant", "available", "held", "spent", "credit limit", "at once", box=box.SIMPLE_HEAD)
    for tenant, account in in_database(read):
        sides = [money.to_text(amount) for amount in (account.available, account.held, account.spent)]
        limit = "none" if account.credit_limit is None else money.to_text(account.credit_limit)
        table.add_row(tenant.name, *sides, limit, "-" if tenant.at_once is None else str(tenant.at_once))
    show_table(table)


def deposit(tenant: str, amount: str, /, *, note: str = "deposit") -> None:
    """
    Put money into a tenant's account.

    Parameters
    ----------
    tenant
        The tenant's name.
    amount
        USD, such as 25 or 25.50.
    note
        Why, for the ledger.
    """
    value = _amount("amount", amount)
    if value == 0:
        raise Trouble("amount: must be above 0")

    async def put(session: AsyncSession) -> Decimal:
        owner = await tenant_named(session, tenant)
        await ledger.deposit(session, owner.id, value, note)
        audit(session, operator(), "tenant.deposit", tenant, tenant_id=owner.id, amount=money.to_text(value), note=note)
        return (await session.scalars(select(Account.available).where(Account.tenant_id == owner.id))).one()

    print(f"{tenant} has {money.to_text(in_database(put))} USD available.")


def limit(tenant: str, /, *, at_once: int | None = None) -> None:
    """
    Say how many jobs of a tenant may be at fal at once.

    Parameters
    ----------
    tenant
        The tenant's name.
    at_once
        0 holds its jobs back; leave it out for TENANT_AT_ONCE.
    """
    if at_once is not None and at_once < 0:
        raise Trouble("--at-once: must be 0 or more")

    async def put(session: AsyncSession) -> None:
        owner = await tenant_named(session, tenant)
        owner.at_once = at_once
        audit(session, operator(), "tenant.limit", tenant, tenant_id=owner.id, at_once=at_once)

    in_database(put)
    print(f"{tenant} may have {'as many as TENANT_AT_ONCE says' if at_once is None else at_once} at fal at once.")


def _amount(name: str, text: str) -> Decimal:
    try:
        value = money.parse(text)
    except ValueError:
        raise Trouble(f"{name}: must be an amount such as 25 or 25.50") from None
    if value < 0 or value > Decimal(1_000_000_000):
        raise Trouble(f"{name}: must be between 0 and 1000000000")
    return value
