"""Retention of callbacks: what is settled goes after a while, with its tries; what is due never does."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import func, text

from app.callbacks import pruner, replays
from app.callbacks.tables import Attempt, DeliveryStatus
from app.db import new_id
from app.verify.verifier import verify
from tests import factories as make
from tests.callbacks import rows

MONTH = timedelta(days=30)
DELIVERED = {"status": DeliveryStatus.DELIVERED, "due_at": None, "delivered_at": func.now()}
DEAD = {"status": DeliveryStatus.DEAD, "due_at": None, "dead_why": "test"}


@pytest.fixture
async def caller(api, db):
    caller, key = await make.make_key(db)
    api.headers["Authorization"] = f"Bearer {key}"
    return caller


@pytest.fixture
async def endpoint(db, caller):
    return await rows.make_endpoint(db, caller, "https://caller.example/")


async def aged(db, caller, days, **values):
    """All the tenant's deliveries, of so many days ago and tried once."""
    for delivery in await rows.deliveries(db, caller):
        queued_at = func.now() - timedelta(days=days)
        await rows.change(db, delivery, queued_at=queued_at, created_at=queued_at, **values)
        async with db.session() as session:
            whose = {"tenant_id": delivery.tenant_id, "delivery_id": delivery.id}
            session.add(Attempt(**whose, id=new_id(), status_code=200, body="", duration_ms=5))


@pytest.mark.parametrize("settled", [DELIVERED, DEAD])
async def test_what_is_settled_goes_with_its_tries(db, caller, endpoint, settled):
    await rows.make_tests(db, endpoint, 5)
    await aged(db, caller, 31, **settled)
    await rows.make_tests(db, endpoint, 2)

    assert await pruner.prune(db, MONTH) == 5

    assert len(await rows.deliveries(db, caller)) == 2
    assert await rows.attempts(db, caller) == []


async def test_what_is_young_or_due_stays(db, caller, endpoint):
    await rows.make_tests(db, endpoint)
    await aged(db, caller, 29, **DELIVERED)
    other = await make.make_tenant(db)
    await rows.make_tests(db, await rows.make_endpoint(db, other, "https://other.example/"))
    await aged(db, other, 400)

    assert await pruner.prune(db, MONTH) == 0


async def test_a_replay_makes_it_young_again(db, caller, endpoint):
    await rows.make_tests(db, endpoint)
    await aged(db, caller, 31, **DEAD)
    (delivery,) = await rows.deliveries(db, caller)
    async with db.session() as session:
        assert await replays.replay_one(session, caller.tenant_id, delivery.id)
    await rows.change(db, delivery, **DELIVERED)

    assert await pruner.prune(db, MONTH) == 0


async def test_a_run_takes_a_bounded_number_and_what_somebody_holds_is_left(db, caller, endpoint):
    await rows.make_tests(db, endpoint, 9)
    await aged(db, caller, 31, **DELIVERED)
    first, *_ = await rows.deliveries(db, caller)
    async with db.session() as other:
        await other.execute(text("SELECT FROM callback_deliveries WHERE id = :id FOR UPDATE"), {"id": first.id})
        async with asyncio.timeout(60):
            assert await pruner.prune(db, MONTH, batch=2, batches=2) == 4
            assert await pruner.prune(db, MONTH) == 4

    assert [delivery.id for delivery in await rows.deliveries(db, caller)] == [first.id]


async def test_who_pages_meanwhile_sees_what_stays_once(db, api, caller, endpoint):
    await rows.make_tests(db, endpoint, 4)
    await aged(db, caller, 31, **DELIVERED)
    await rows.make_tests(db, endpoint, 4)
    young = [str(delivery.id) for delivery in await rows.deliveries(db, caller)][4:]
    shown: list[str] = []
    cursor: str | None = ""

    while cursor is not None:
        page = (await api.get(f"/v1/deliveries?limit=3{cursor and f'&cursor={cursor}'}")).json()
        shown += [delivery["id"] for delivery in page["data"]]
        cursor = page["next_cursor"]
        await pruner.prune(db, MONTH, batch=2, batches=1)

    assert shown[:4] == young[::-1]
    assert len(shown) == len(set(shown))


async def test_every_promise_is_still_proved_once_callbacks_are_gone(db, caller):
    job = await rows.finished(db, caller, callback_url="https://caller.example/")
    async with db.session() as session:
        await session.execute(text("UPDATE jobs SET finished_at = finished_at - interval '31 days'"))
    await aged(db, caller, 31, **DELIVERED)

    assert await pruner.prune(db, MONTH) == 1

    assert (await verify(db)).findings == []
    assert (await make.look(db, job)).callback_url is not None
