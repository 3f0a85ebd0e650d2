"""Orders accepted in sets: each as if it had come alone, and none harmed by its neighbours."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from app.billing.prices import quote
from app.callbacks.events import ENDINGS
from app.callbacks.tables import Endpoint
from app.db import Database
from app.jobs import accepting
from app.jobs.accepting import Accepting
from app.jobs.tables import Job, JobEvent
from app.tenants.caller import Caller
from tests import factories as make

URL = "https://caller.example/callbacks"


def member(caller: Caller, seconds: int = 5, **fields: Any) -> Accepting:
    """An order for 0.42 USD a second."""
    order = make.an_order(input={"prompt": "a mecha", "duration": str(seconds)}, **fields)
    return Accepting(caller, order, quote(make.CATALOG.known(order.model), order.input))


async def accept(db: Database, members: Sequence[Accepting]) -> list[Any]:
    return await db.run_one(partial(accepting.accept, members=members))


async def test_a_set_of_many_tenants_holds_each_ones_price(db):
    ours, theirs = await make.make_tenant(db), await make.make_tenant(db)

    jobs = await accept(db, [member(ours), member(theirs, 10), member(ours, 3)])

    assert None not in jobs
    assert await make.balances(db, ours) == (Decimal("-3.36"), Decimal("3.36"), Decimal(0))
    assert await make.balances(db, theirs) == (Decimal("-4.20"), Decimal("4.20"), Decimal(0))
    async with db.session() as session:
        assert await session.scalar(select(func.count()).select_from(JobEvent)) == 3


async def test_what_is_told_of_a_new_job_is_what_its_row_has(db):
    caller = await make.make_tenant(db)
    order: dict[str, Any] = {
        "metadata": {"a": "é"},
        "end_user": "u",
        "deadline_s": 90.5,
        "idempotency_key": "k",
        "priority": 0,
    }

    (told,) = await accept(db, [member(caller, **order)])

    kept = await make.look(db, told)
    columns = [column.key for column in Job.__mapper__.column_attrs]
    late = {"order_digest", "due_at", "waiting_for", "fal_account", "tries", "lease_token"}
    assert {name: getattr(told, name) for name in columns if name not in late} == {
        name: getattr(kept, name) for name in columns if name not in late
    }
    assert kept.order_digest == b"0" * 32


async def endpoints_of(db: Database, caller: Caller) -> list[Any]:
    async with db.session() as session:
        return list(await session.scalars(select(Endpoint).where(Endpoint.tenant_id == caller.tenant_id)))


async def test_orders_with_an_address_bring_their_tenants_endpoint_once_and_others_bring_none(db):
    ours, theirs = await make.make_tenant(db), await make.make_tenant(db)

    await accept(db, [member(ours, callback_url=URL), member(theirs), member(ours, callback_url=URL), member(ours)])
    (made,) = await endpoints_of(db, ours)
    await accept(db, [member(ours, callback_url=URL)])

    assert await endpoints_of(db, theirs) == []
    (endpoint,) = await endpoints_of(db, ours)
    assert (endpoint.id, endpoint.secret, endpoint.url) == (made.id, made.secret, None)
    assert endpoint.events == list(ENDINGS)
    assert len(endpoint.secret) == 32


async def test_sets_side_by_side_make_one_endpoint(db):
    caller = await make.make_tenant(db)

    sets = await asyncio.gather(*(accept(db, [member(caller, callback_url=URL)]) for _ in range(8)))

    assert [None] not in sets
    assert len(await endpoints_of(db, caller)) == 1


async def test_an_order_that_is_left_out_brings_no_endpoint(db):
    caller = await make.make_tenant(db, credit_limit="1")

    assert await accept(db, [member(caller, callback_url=URL)]) == [None]

    assert await endpoints_of(db, caller) == []


async def test_an_order_with_an_address_goes_together_with_others(world):
    sets = []
    gathered = world.app.state.accepting._write

    async def write(members: Sequence[Accepting]) -> Any:
        sets.append([each.order.callback_url for each in members])
        return await gathered(members)

    world.app.state.accepting._write = write

    await world.order(callback_url=URL)

    assert sets == [[URL]]


async def test_an_order_that_came_before_is_left_out_and_its_neighbours_are_not(db):
    caller = await make.make_tenant(db)
    await accept(db, [member(caller, idempotency_key="before")])

    again, twice, new, other = await accept(
        db,
        [
            member(caller, idempotency_key="before"),
            member(caller, idempotency_key="twice"),
            member(caller, idempotency_key="twice"),
            member(caller, idempotency_key="other"),
        ],
    )

    assert again is None
    assert [twice, new].count(None) == 1
    assert other is not None
    assert (await make.balances(db, caller))[1] == Decimal("6.30")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    limit=st.integers(0, 60),
    lengths=st.lists(st.integers(3, 15), min_size=1, max_size=12),
    sets=st.integers(1, 4),
)
async def test_no_set_goes_over_a_credit_limit_and_none_leaves_out_what_is_covered(db, limit, lengths, sets):
    credit = Decimal(limit)
    caller = await make.make_tenant(db, credit_limit=str(credit))
    held = Decimal(0)

    for number in range(sets):
        orders = [member(caller, seconds) for seconds in lengths[number::sets]]
        so_far = held
        for order, job in zip(orders, await accept(db, orders), strict=True):
            so_far += order.quote.amount
            assert (job is not None) == (so_far <= credit), "as if all before it in its set had been taken"
        held = (await make.balances(db, caller))[1]

    assert (await make.balances(db, caller)) == (-held, held, Decimal(0))
    assert held <= credit


async def test_a_set_that_postgres_refuses_writes_nothing(db):
    caller = await make.make_tenant(db)
    bad = member(caller)

    with pytest.raises(Exception, match="violates check constraint"):
        await accept(db, [member(caller), replace(bad, quote=replace(bad.quote, amount=Decimal("9.99")))])

    assert await make.entries_of(db, caller) == []


async def test_together_one_bad_order_fails_alone(db):
    caller = await make.make_tenant(db)
    gather = accepting.gatherer(db)
    bad = member(caller)
    members = [member(caller), replace(bad, quote=replace(bad.quote, amount=Decimal("9.99"))), member(caller)]

    found = await asyncio.gather(*map(gather, members), return_exceptions=True)

    assert [isinstance(one, Exception) for one in found] == [False, True, False]
    assert (await make.balances(db, caller))[1] == Decimal("4.20")
