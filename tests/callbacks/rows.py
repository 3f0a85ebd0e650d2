"""Endpoints, deliveries and what became of them, for tests."""

from functools import partial
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.callbacks import outbox, signing
from app.callbacks.events import ENDINGS
from app.callbacks.tables import Attempt, Delivery, Endpoint
from app.db import Database, new_id
from app.jobs.tables import Job
from app.tenants.caller import Caller
from tests import factories as make


async def make_endpoint(db: Database, caller: Caller, url: str, **values: Any) -> Endpoint:
    async def add(session: AsyncSession) -> Endpoint:
        filled = {"events": list(ENDINGS), "secret": signing.new_secret(), **values}
        endpoint = Endpoint(tenant_id=caller.tenant_id, id=new_id(), url=url, **filled)
        session.add(endpoint)
        await session.flush()
        return endpoint

    return await db.run(add)


async def make_tests(db: Database, endpoint: Endpoint, count: int = 1) -> None:
    """That many deliveries of no job, due now."""
    for number in range(count):
        body = f'{{"type":"endpoint.test","n":{number}}}'
        news = outbox.News(tenant_id=endpoint.tenant_id, listeners=[endpoint.id], kind="endpoint.test", body=body)
        await db.run(partial(outbox.add, news=[news]))


async def finished(db: Database, caller: Caller, **order: Any) -> Job:
    """A job that was submitted and succeeded."""
    intent = await make.taken(db, caller, make.an_order(**order))
    request_id = f"req-{intent.job.id}"
    await make.submit(db, intent, request_id)
    await make.report(db, intent, make.success(request_id))
    return await make.look(db, intent.job)


async def deliveries(db: Database, caller: Caller) -> list[Delivery]:
    """All of the tenant's, oldest first."""
    async with db.session() as session:
        found = select(Delivery).where(Delivery.tenant_id == caller.tenant_id).order_by(Delivery.id)
        return list((await session.scalars(found)).all())


async def attempts(db: Database, caller: Caller) -> list[Attempt]:
    async with db.session() as session:
        found = select(Attempt).where(Attempt.tenant_id == caller.tenant_id).order_by(Attempt.id)
        return list((await session.scalars(found)).all())


async def look(db: Database, endpoint: Endpoint) -> Endpoint:
    """The endpoint as it is now."""
    async with db.session() as session:
        return await session.get_one(Endpoint, (endpoint.tenant_id, endpoint.id))


async def change(db: Database, row: Any, **values: Any) -> None:
    """Write *values* into a row."""
    table = type(row)
    async with db.session() as session:
        await session.execute(update(table).where(table.tenant_id == row.tenant_id, table.id == row.id).values(values))


async def all_due(db: Database, caller: Caller) -> None:
    """What waits for its time needn't any longer."""
    async with db.session() as session:
        waiting = update(Delivery).where(Delivery.tenant_id == caller.tenant_id, Delivery.due_at.is_not(None))
        await session.execute(waiting.values(due_at=func.now()))
