"""Rounds of dispatch on a real Postgres: caps with many workers, turns between tenants, huge queues."""

import asyncio
from collections import Counter
from datetime import timedelta
from functools import partial

from sqlalchemy import text, update

from app import clock
from app.jobs import lanes, taking
from app.jobs.fairness import Caps
from app.jobs.states import Priority
from app.tenants.tables import Tenant
from tests import factories as make
from tests.databases import few_in
from tests.test_plans import plans

HUGE = 100_000
QUEUED = text("""
    INSERT INTO jobs (tenant_id, id, model, input, order_digest, status, seconds, price_per_second, quoted, due_at,
                      priority)
    SELECT :tenant, gen_random_uuid(), 'model-' || n % 5, '{}', sha256('x'), 'queued', 5, 0.42, 2.10,
           now() + make_interval(secs => :later - n * 0.001), n % 3
    FROM generate_series(1, :count) AS n
""")
# So many rows of jobs, and entries of its indexes, this transaction has read.
READ = text("""
    SELECT pg_stat_get_xact_tuples_returned('jobs'::regclass) + sum(pg_stat_get_xact_tuples_returned(indexrelid))
    FROM pg_index WHERE indrelid = 'jobs'::regclass
""")


async def flood(db, tenant_id, count, *, later=0.0):
    """So many jobs of one tenant in our queue, due in *later* seconds."""
    # Past the bound of a session, and of its statements: many rows take a slow machine a while.
    async with db.engine.begin() as connection:
        await connection.execute(text("SET LOCAL statement_timeout = 0"))
        await connection.execute(QUEUED, {"tenant": tenant_id, "count": count, "later": later})


async def take(db, limit, caps=None):
    return await db.run_few(partial(taking.take, owner="x", limit=limit, lease_s=60, caps=caps or Caps()))


async def due(db, **wanted):
    (rows,) = await db.run_few(lambda ask: ask(lanes.waiting(**wanted)))
    return lanes.due(rows)


async def limit_to(db, caller, at_once):
    async with db.session() as session:
        await session.execute(update(Tenant).where(Tenant.id == caller.tenant_id).values(at_once=at_once))


async def test_many_workers_at_once_stay_within_every_cap(db):
    callers = [await make.make_tenant(db) for _ in range(3)]
    for caller in callers:
        await flood(db, caller.tenant_id, 40)
    await limit_to(db, callers[0], 2)
    caps = Caps({"one": 11, "two": 4}, {"model-1": 3}, tenant=9)

    rounds = await asyncio.gather(*(take(db, 4, caps) for _ in range(8)))
    rest = await take(db, 100, caps)

    taken = [intent for intents in [*rounds, rest] for intent in intents]
    accounts = Counter(intent.attempt.fal_account for intent in taken)
    tenants = Counter(intent.job.tenant_id for intent in taken)
    assert accounts == {"one": 11, "two": 4}
    assert tenants[callers[0].tenant_id] == 2
    assert all(tenants[caller.tenant_id] <= 9 for caller in callers)
    assert Counter(intent.job.model for intent in taken)["model-1"] <= 3
    assert len({intent.job.id for intent in taken}) == len(taken) == 15
    assert await take(db, 100, caps) == []


async def test_another_tenants_first_job_is_in_the_round_after_a_hundred_thousand_of_one(db):
    busy, other = [await make.make_tenant(db) for _ in range(2)]
    await flood(db, busy.tenant_id, HUGE)
    async with db.engine.connect() as connection:
        await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(text("ANALYZE jobs"))
    await take(db, 32)
    job = await make.accept(db, other)

    async with db.session() as session:
        before = await session.scalar(READ)
        taken = await taking.take(few_in(session), owner="x", limit=32, lease_s=60)
        read = await session.scalar(READ) - before
    (plan,) = await plans(db, lambda session: few_in(session)(lanes.waiting(accounts=["default"], limit=32)))

    assert job.id in {intent.job.id for intent in taken}
    assert len(taken) == 32
    assert read < 5_000
    assert "ix_jobs_lanes" in plan
    assert "Seq Scan on jobs" not in plan


async def test_a_round_looks_at_lanes_and_not_at_the_jobs_in_them(db):
    busy = await make.make_tenant(db)
    await flood(db, busy.tenant_id, 1_000)

    found = await due(db, limit=10)

    # Five models at three priorities, and of each no more than a round takes.
    assert {*Counter((job.model, job.priority) for job in found.jobs).values()} == {10}
    assert len(found.jobs) == 150


async def test_tenants_whose_jobs_all_wait_for_later_do_not_starve_others(db):
    for _ in range(12):
        await flood(db, (await make.make_tenant(db)).tenant_id, 3, later=3600)
    job = await make.accept(db, await make.make_tenant(db))

    taken = await take(db, 2)

    assert [intent.job.id for intent in taken] == [job.id]


async def test_a_look_that_had_to_stop_goes_on_where_it_stopped(db):
    for _ in range(4):
        await flood(db, (await make.make_tenant(db)).tenant_id, 3, later=3600)
    job = await make.accept(db, await make.make_tenant(db))
    after, seen = None, []

    for _ in range(8):
        found = await due(db, after=after, limit=5, most=3)
        seen += [waiting.tenant_id for waiting in found.jobs]
        after = found.until

    assert job.tenant_id in seen


async def test_a_full_tenant_or_model_takes_up_no_room_in_a_round(db):
    callers = [await make.make_tenant(db) for _ in range(4)]
    for caller in callers[:3]:
        await limit_to(db, caller, 0)
        await flood(db, caller.tenant_id, 10)
    await flood(db, callers[3].tenant_id, 10)

    taken = await take(db, 2, Caps(models={"model-1": 0}))

    assert {intent.job.tenant_id for intent in taken} == {callers[3].tenant_id}
    assert len(taken) == 2


async def test_priority_counts_within_a_tenant_and_run_after_is_kept(db):
    caller = await make.make_tenant(db)
    low = await make.accept(db, caller, make.an_order(priority=Priority.LOW))
    later = clock.now() + timedelta(hours=1)
    await make.accept(db, caller, make.an_order(priority=Priority.HIGH, run_after=later))
    high = await make.accept(db, caller, make.an_order(make.EDIT, priority=Priority.HIGH))

    order = [intent.job.id for _ in range(3) for intent in await take(db, 1)]

    assert order == [high.id, low.id]


async def test_turns_go_on_from_round_to_round(db):
    callers = [await make.make_tenant(db) for _ in range(3)]
    for caller in callers:
        await flood(db, caller.tenant_id, 5)

    served = [intent.job.tenant_id for _ in range(6) for intent in await take(db, 1)]

    assert set(served[:3]) == set(served[3:]) == {caller.tenant_id for caller in callers}
