"""Rows for tests, made the way the product makes them."""

from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing import ledger
from app.billing.prices import quote
from app.billing.tables import Account, LedgerEntry
from app.callbacks.tables import Delivery
from app.catalog.catalog import load
from app.db import Database
from app.fal.messages import Accepted, Outcome, Report
from app.jobs import intake, keeping, lifecycle, taking
from app.jobs.lifecycle import AttemptKey, JobKey
from app.jobs.order import Order
from app.jobs.tables import Attempt, FalAccount, Job, JobEvent
from app.jobs.taking import Intent
from app.media.download import Unfetched
from app.media.rescuer import Ended, Kept
from app.media.tables import Output
from app.money import Price
from app.tenants import minting
from app.tenants.auth import find
from app.tenants.caller import Caller

CATALOG = load()
O3 = "fal-ai/kling-video/o3/4k/text-to-video"
EDIT = "fal-ai/kling-video/o1/video-to-video/edit"
OUTPUT = {"video": {"url": "https://v3b.fal.media/files/b/0a8d04e2/x.mp4", "content_type": "video/mp4"}}


async def make_tenant(db: Database, *, credit_limit: str | None = None) -> Caller:
    """A tenant with an account and a key that may do everything."""
    return (await make_key(db, credit_limit=credit_limit))[0]


async def make_key(db: Database, *, credit_limit: str | None = None, **of_key: Any) -> tuple[Caller, str]:
    """The same, with the key's text."""

    async def make(session: AsyncSession) -> tuple[Caller, str]:
        tenant_id = await minting.ensure_tenant(session, f"tenant-{uuid4().hex[:12]}")
        limit = Decimal(credit_limit) if credit_limit is not None else None
        await ledger.open_account(session, tenant_id, credit_limit=limit)
        text = await minting.create_key(session, tenant_id, name="test", **of_key)
        caller = await find(session, text)
        assert caller is not None
        return caller, text

    return await db.run(make)


def an_order(model: str = O3, **fields: Any) -> Order:
    """An order for five seconds of video, or what *fields* change of it."""
    example = {"prompt": "a mecha lands", "duration": "5"} if model == O3 else dict(CATALOG.known(model).example)
    return Order(model=model, **{"input": example, "digest": b"0" * 32, **fields})


async def accept(db: Database, caller: Caller, order: Order | None = None) -> Job:
    """A queued job."""
    wanted = order or an_order()
    price = quote(CATALOG.known(wanted.model), wanted.input)
    job, _ = await db.run(partial(intake.accept, caller=caller, order=wanted, quote=price))
    return job


async def held(db: Database, caller: Caller, amount: Decimal) -> UUID:
    """The id of a job for which *amount* is held."""
    order = an_order()
    price = quote(CATALOG.known(order.model), order.input)
    price = replace(price, seconds=Decimal(1), price=Price(amount), amount=amount)
    job, _ = await db.run(partial(intake.accept, caller=caller, order=order, quote=price))
    return job.id


async def take(db: Database, limit: int = 1) -> list[Intent]:
    """Jobs in `submitting`, as the dispatcher has them."""
    return await db.run_few(partial(taking.take, owner="test", limit=limit, lease_s=60))


async def taken(db: Database, caller: Caller, order: Order | None = None) -> Intent:
    """A new job in `submitting`."""
    await accept(db, caller, order)
    (intent,) = await take(db)
    return intent


def key_of(intent: Intent) -> AttemptKey:
    return AttemptKey(intent.job.tenant_id, intent.attempt.id)


def accepted(request_id: str = "req-1") -> Accepted:
    base = f"https://queue.fal.run/fal-ai/kling-video/requests/{request_id}"
    return Accepted(request_id, f"{base}/status", base, f"{base}/cancel", 0)


async def submit(db: Database, intent: Intent, request_id: str = "req-1") -> None:
    """fal took it."""
    await db.run(partial(lifecycle.submitted, key=key_of(intent), answer=accepted(request_id), expected_s=60, ask_s=60))


def success(request_id: str = "req-1") -> Report:
    return Report(request_id, Outcome.SUCCEEDED, output=dict(OUTPUT))


def failure(request_id: str = "req-1", outcome: Outcome = Outcome.FAILED) -> Report:
    error = {"code": "content_policy_violation", "title": "No.", "detail": None, "retryable": False}
    return Report(request_id, outcome, error=error)


async def report(db: Database, intent: Intent, news: Report, measured_s: Decimal | None = None) -> lifecycle.Applied:
    return await db.run(partial(lifecycle.reported, key=key_of(intent), report=news, measured_s=measured_s))


async def files_of(db: Database, job: JobKey | Job) -> list[Any]:
    """The files of its output, by number."""
    async with db.session() as session:
        found = select(Output).where(Output.tenant_id == job.tenant_id, Output.job_id == job.id)
        return list(await session.scalars(found.order_by(Output.number)))


async def keep(db: Database, job: JobKey | Job, error: Unfetched | None = None) -> None:
    """Its files are in our own storage, or given up for *error*."""
    files = await files_of(db, job)
    kept = None if error else Kept("x", 1, b"0" * 32, "video/mp4", None)
    members = [Ended(file, kept, error) for file in files]
    assert all(await db.run_few(partial(keeping.note_ended, members=members)))


async def look(db: Database, key: JobKey | Job) -> Job:
    """The job as it is now."""
    async with db.session() as session:
        found = select(Job).where(Job.tenant_id == key.tenant_id, Job.id == key.id)
        return (await session.scalars(found)).one()


async def key_of_id(db: Database, job_id: str) -> JobKey:
    """The key of the job with this id, whoever's it is."""
    async with db.session() as session:
        return JobKey(*(await session.execute(select(Job.tenant_id, Job.id).where(Job.id == UUID(job_id)))).one())


async def attempts_of(db: Database, job: Job) -> list[Attempt]:
    async with db.session() as session:
        found = select(Attempt).where(Attempt.tenant_id == job.tenant_id, Attempt.job_id == job.id)
        return list((await session.scalars(found.order_by(Attempt.number))).all())


async def events_of(db: Database, job: Job) -> list[tuple[int, str]]:
    async with db.session() as session:
        found = select(JobEvent).where(JobEvent.tenant_id == job.tenant_id, JobEvent.job_id == job.id)
        return [(event.number, event.status) for event in (await session.scalars(found.order_by(JobEvent.number)))]


async def entries_of(db: Database, caller: Caller) -> list[tuple[str, Decimal]]:
    async with db.session() as session:
        found = select(LedgerEntry).where(LedgerEntry.tenant_id == caller.tenant_id).order_by(LedgerEntry.id)
        return [(entry.kind, entry.amount) for entry in (await session.scalars(found))]


async def balances(db: Database, caller: Caller) -> tuple[Decimal, Decimal, Decimal]:
    """What is available, held and spent."""
    async with db.session() as session:
        account = (await session.scalars(select(Account).where(Account.tenant_id == caller.tenant_id))).one()
        return account.available, account.held, account.spent


async def assert_adds_up(db: Database, caller: Caller) -> None:
    """The balances are exactly what the entries say."""
    async with db.session() as session:
        for side in ("available", "held", "spent"):
            into = select(func.coalesce(func.sum(LedgerEntry.amount), 0)).where(
                LedgerEntry.tenant_id == caller.tenant_id
            )
            came = (await session.scalars(into.where(LedgerEntry.to_side == side))).one()
            went = (await session.scalars(into.where(LedgerEntry.from_side == side))).one()
            now = (
                await session.scalars(select(getattr(Account, side)).where(Account.tenant_id == caller.tenant_id))
            ).one()
            assert now == came - went, side


async def let_time_pass(db: Database) -> None:
    """Everything that waits for its time is due."""

    async def pull(session: AsyncSession) -> None:
        for table in (Job, Output, Delivery):
            await session.execute(update(table).where(table.due_at.is_not(None)).values(due_at=func.now()))
        await session.execute(update(FalAccount).where(FalAccount.probe_at.is_not(None)).values(probe_at=func.now()))

    await db.run(pull)
