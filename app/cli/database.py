"""The database that operator commands work on: DATABASE_URL, or the one of a running `callsheet up`."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app import wakeup
from app.cli.trouble import Exit, Trouble
from app.db import Database
from app.postgres import running_url
from app.settings import Settings
from app.tenants.tables import Tenant

T = TypeVar("T")


def in_database(work: Callable[[AsyncSession], Awaitable[T]], *, announced: bool = False) -> T:
    """What *work* returns, from one committed transaction; *announced* if workers and streams are to look at once."""
    url = database_url(Settings.read())

    async def run() -> T:
        db = Database(url, pool=1)
        try:
            done = await db.run(work)
        finally:
            await db.close()
        if announced:
            await wakeup.announce_once(url)
        return done

    return asyncio.run(run())


def database_url(settings: Settings) -> str:
    """Where the database is. Raises Trouble if nobody says so."""
    given = settings.database_url.get_secret_value() if settings.database_url else None
    url = given or running_url(settings.data / "postgres")
    if url is None:
        raise Trouble(f"No Callsheet runs in {settings.data}, and DATABASE_URL is not set.", Exit.UNREACHABLE)
    return url


async def tenant_named(session: AsyncSession, name: str) -> Tenant:
    """The tenant called *name*. Raises Trouble if there is none."""
    tenant = await session.scalar(select(Tenant).where(Tenant.name == name))
    if tenant is None:
        raise Trouble(f"There is no tenant {name}; make it with `callsheet tenants create {name}`.")
    return tenant
