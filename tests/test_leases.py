"""Leases: whose turn it is, and for how long."""

import asyncio
from functools import partial

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, update

from app import leases
from app.jobs.tables import Job
from tests import factories as make


async def claim(db, owner="me", limit=10):
    return await db.run(partial(leases.claim, table=Job, owner=owner, limit=limit, lease_s=60))


async def test_what_is_taken_is_nobody_elses_until_the_lease_runs_out(db):
    job = await make.accept(db, await make.make_tenant(db))

    (mine,) = await claim(db, "me")
    assert await claim(db, "you") == []
    await make.let_time_pass(db)
    (yours,) = await claim(db, "you")

    assert mine.id == yours.id == job.id
    assert (yours.lease_owner, yours.lease_token, yours.tries) == ("you", mine.lease_token + 1, 2)


async def test_the_soonest_due_comes_first(db):
    caller = await make.make_tenant(db)
    jobs = [await make.accept(db, caller) for _ in range(3)]
    async with db.session() as session:
        oldest = update(Job).where(Job.id == jobs[2].id)
        await session.execute(oldest.values(due_at=func.now() - func.make_interval(0, 0, 0, 0, 1)))

    (first,) = await claim(db, limit=1)

    assert first.id == jobs[2].id


async def test_whoever_lost_the_lease_cannot_give_the_row_back(db):
    await make.accept(db, await make.make_tenant(db))
    (mine,) = await claim(db, "me")
    await make.let_time_pass(db)
    (yours,) = await claim(db, "you")

    assert not await db.run(partial(leases.again, row=mine, wait_s=0))
    assert await db.run(partial(leases.again, row=yours, wait_s=0))


async def test_a_finished_row_is_never_made_due_again(db):
    intent = await make.taken(db, await make.make_tenant(db))
    await make.report(db, intent, make.success())

    assert not await db.run(partial(leases.again, row=intent.job, wait_s=0))
    assert (await make.look(db, intent.job)).due_at is None


async def test_many_workers_share_without_sharing_a_row(db):
    caller = await make.make_tenant(db)
    for _ in range(30):
        await make.accept(db, caller)

    taken = await asyncio.gather(*(claim(db, f"w{n}", limit=7) for n in range(8)))

    ids = [row.id for batch in taken for row in batch]
    assert len(ids) == len(set(ids)) == 30


@given(st.integers(min_value=1, max_value=10_000))
def test_pauses_grow_but_never_beyond_the_longest(tries):
    pause = leases.backoff_s(tries, first_s=1, longest_s=600)

    assert 0.5 <= pause <= 600
    assert pause <= 2 ** (tries - 1) if tries < 11 else pause >= 300
