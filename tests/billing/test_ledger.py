"""The ledger: no order of holds, charges and releases loses or makes a cent."""

from decimal import Decimal
from functools import partial
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from app.billing import ledger
from tests import factories as make

AMOUNT = st.decimals(min_value="0", max_value="10000", places=6)
SHARE = st.fractions(min_value=0, max_value=1)
STEP = st.one_of(
    st.tuples(st.just("deposit"), AMOUNT),
    st.tuples(st.just("hold"), AMOUNT),
    st.tuples(st.just("charge"), SHARE),
    st.tuples(st.just("release"), SHARE),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=st.lists(STEP, max_size=12), picks=st.randoms(use_true_random=False))
async def test_no_order_of_holds_charges_and_releases_loses_or_makes_a_cent(db, steps, picks):
    caller = await make.make_tenant(db)
    holds: dict[UUID, Decimal] = {}
    available = held = spent = Decimal(0)

    for kind, size in steps:
        if kind == "deposit":
            await db.run(partial(ledger.deposit, tenant_id=caller.tenant_id, amount=size, note="test"))
            available += size
        elif kind == "hold":
            job_id = await make.held(db, caller, size)
            holds[job_id] = size
            available, held = available - size, held + size
        elif holds:
            job_id = picks.choice(sorted(holds))
            amount = holds.pop(job_id)
            if kind == "charge":
                part = (amount * size.numerator / size.denominator).quantize(Decimal("0.000001"))
                part = min(part, amount)
                await db.run(partial(ledger.charge, tenant_id=caller.tenant_id, job_id=job_id, amount=part))
            else:
                part = Decimal(0)
                await db.run(partial(ledger.release, tenant_id=caller.tenant_id, job_id=job_id))
            available, held, spent = available + amount - part, held - amount, spent + part

    assert await make.balances(db, caller) == (available, held, spent)
    await make.assert_adds_up(db, caller)


@pytest.mark.parametrize("first", ["charge", "release"])
@pytest.mark.parametrize("second", ["charge", "release"])
async def test_a_hold_is_resolved_once(db, first, second):
    caller = await make.make_tenant(db)
    job_id = await make.held(db, caller, Decimal("2.10"))
    ways = {
        "charge": partial(ledger.charge, tenant_id=caller.tenant_id, job_id=job_id, amount=Decimal(1)),
        "release": partial(ledger.release, tenant_id=caller.tenant_id, job_id=job_id),
    }
    await db.run(ways[first])
    before = await make.balances(db, caller)

    with pytest.raises(IntegrityError):
        await db.run(ways[second])

    assert await make.balances(db, caller) == before
    await make.assert_adds_up(db, caller)


async def test_a_second_hold_for_a_job_is_refused(db):
    caller = await make.make_tenant(db)
    job_id = await make.held(db, caller, Decimal(1))
    again = text("""
        INSERT INTO ledger_entries (tenant_id, id, kind, from_side, to_side, amount, job_id)
        VALUES (:tenant, gen_random_uuid(), 'hold', 'available', 'held', 2, :job)
    """)

    with pytest.raises(IntegrityError, match="uq_ledger_entries_hold"):
        await db.run(lambda session: session.execute(again, {"tenant": caller.tenant_id, "job": job_id}))

    await make.assert_adds_up(db, caller)


HOLD = "('hold', 'available', 'held', 2.10, NULL, NULL)"


@pytest.mark.parametrize(
    ("entry", "constraint"),
    [
        ("('charge', 'held', 'spent', 2.11, 2.10, NULL)", "charge_within_hold"),
        ("('charge', 'held', 'spent', 2.11, 2.11, NULL)", "fk_ledger_entries_hold"),
        ("('charge', 'held', 'spent', 1, NULL, NULL)", "resolution_names_hold"),
        ("('release', 'held', 'available', 2, 2.10, NULL)", "release_is_what_is_left"),
        ("('release', 'held', 'available', 1.10, 2.10, 1)", "fk_ledger_entries_charge"),
        ("('hold', 'available', 'held', 1, NULL, NULL)", "uq_ledger_entries_hold"),
        ("('hold', 'available', 'available', 1, NULL, NULL)", "kind_fits_sides"),
        ("('deposit', 'held', 'available', 1, NULL, NULL)", "kind_fits_sides"),
        ("('adjust', 'spent', 'spent', 1, NULL, NULL)", "kind_fits_sides"),
        ("('deposit', 'outside', 'available', -1, NULL, NULL)", "amount_not_negative"),
        ("('gift', 'outside', 'available', 1, NULL, NULL)", "kind_fits_sides"),
        ("('deposit', NULL, 'available', 1, NULL, NULL)", "from_side"),
        ("('deposit', 'outside', NULL, 1, NULL, NULL)", "to_side"),
    ],
)
async def test_postgres_itself_refuses_a_wrong_entry(db, entry, constraint):
    caller = await make.make_tenant(db)
    of = {"tenant": caller.tenant_id, "job": uuid4()}
    columns = "tenant_id, id, job_id, kind, from_side, to_side, amount, hold_amount, charge_amount"
    into = f"INSERT INTO ledger_entries ({columns}) VALUES (:tenant, gen_random_uuid(), :job, "
    async with db.session() as session:
        await session.execute(text(into + HOLD[1:]), of)

    with pytest.raises(IntegrityError, match=constraint):
        async with db.session() as session:
            await session.execute(text(into + entry[1:]), of)
