"""fal accounts: locked, tried with one job, opened, drained in turn; and each job asked about where it is."""

from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

import httpx
import pytest
from sqlalchemy import func, select, update

from app.fal.accounts import Account, Accounts
from app.fal.client import FalClient
from app.fal.messages import Refused
from app.fal.platform import Platform
from app.fal.storage import FalStorage
from app.jobs import accounts, taking, waiting
from app.jobs.fairness import Caps
from app.jobs.tables import Attempt, FalAccount
from tests import factories as make
from tests.world import build, run_once

TWO = {"second": {"key": "second"}}
LOCKED = Refused(403, "account_locked", {"code": "fal_403", "detail": "User is locked.", "retryable": True})


@pytest.fixture
async def worlds(database_url, tmp_path):
    """Makes a world with other settings."""
    async with AsyncExitStack() as stack:
        yield partial(build, stack, database_url, tmp_path)


async def lock(world, *, locked=True, **change):
    answer = await world.fal.put("/simulator/account", json={"locked": locked, **change})
    assert answer.is_success, answer.text


async def row_of(db, name="default"):
    async with db.session() as session:
        return (await session.scalars(select(FalAccount).where(FalAccount.name == name))).one()


async def probe_is_due(db):
    async with db.session() as session:
        await session.execute(update(FalAccount).where(FalAccount.locked_why.is_not(None)).values(probe_at=func.now()))


async def statuses(world, jobs):
    return [(await world.job(job["id"]))["status"] for job in jobs]


async def test_a_lock_parks_every_job_lets_one_try_and_then_all_go_on(world):
    jobs = [await world.order() for _ in range(4)]
    await lock(world)

    refused = await world.dispatch()
    parked = [await world.job(job["id"]) for job in jobs]
    nothing = await world.dispatch()
    first = await row_of(world.db)
    await probe_is_due(world.db)
    tried = await world.dispatch()
    second = await row_of(world.db)
    await lock(world, locked=False)
    still_nothing = await world.dispatch()
    await probe_is_due(world.db)
    probed = await world.dispatch()
    opened = await row_of(world.db)
    rest = await world.dispatch()

    assert (refused, nothing, tried, still_nothing, probed, rest) == (4, 0, 1, 0, 1, 3)
    assert {(job["status"], job["waiting"]["for"], job["cost"]["held"]) for job in parked} == {
        ("queued", "account_locked", "2.10")
    }
    assert (first.locked_why, first.probes, second.probes) == ("account_locked", 0, 1)
    assert "Exhausted balance" in first.locked_detail
    assert second.since == first.since
    assert (opened.locked_why, opened.probe_at) == (None, None)
    assert await statuses(world, jobs) == ["submitted"] * 4
    assert len(await world.books()) == 4


async def test_what_is_at_fal_is_asked_about_while_its_account_is_locked(world):
    job = await world.order("[[sim: webhook=never]] a mecha")
    await world.dispatch()
    await lock(world)
    await world.order()
    await world.dispatch()
    await world.at_fal(60)

    done = await world.reconciled(job["id"])

    assert (await row_of(world.db)).locked_why == "account_locked"
    assert (done["status"], done["cost"]["charged"]) == ("succeeded", "2.10")


async def test_a_locked_account_leaves_its_jobs_to_another(worlds):
    world = await worlds(fal_accounts=TWO)
    await lock(world, key="second")
    jobs = [await world.order() for _ in range(4)]

    await world.dispatch()
    on_second = await statuses(world, jobs)
    await world.dispatch()

    assert sorted(on_second) == ["queued", "queued", "submitted", "submitted"]
    assert await statuses(world, jobs) == ["submitted"] * 4
    assert ((await row_of(world.db)).locked_why, (await row_of(world.db, "second")).locked_why) == (
        None,
        "account_locked",
    )


async def test_a_probe_whose_worker_died_lets_the_next_one_go(world):
    jobs = [await world.order() for _ in range(3)]
    await lock(world)
    await world.dispatch()
    await lock(world, locked=False)
    await probe_is_due(world.db)

    # The first takes the probe and dies; meanwhile, nobody else may try.
    dead = await world.dispatcher.take(10)
    meanwhile = await world.dispatch()
    for piece in dead:
        piece.close()
    await probe_is_due(world.db)
    tried = await world.dispatch()
    rest = await world.dispatch()

    assert (len(dead), meanwhile, tried, rest) == (1, 0, 1, 1)
    assert sorted(await statuses(world, jobs)) == ["submitted", "submitted", "submitting"]


async def test_a_refused_key_parks_the_account_under_its_own_reason(world):
    job = await world.order("[[sim: refuse=401, times=1]] a mecha")

    await world.dispatch()
    refused = await world.job(job["id"])

    assert (await row_of(world.db)).locked_why == "key_refused"
    assert (refused["status"], refused["waiting"]["for"]) == ("queued", "account_locked")


async def test_a_refusal_that_is_not_about_the_account_parks_nothing(world):
    job = await world.order("[[sim: refuse=403, times=1]] a mecha")
    other = await world.order()

    await world.dispatch()

    refused = await world.job(job["id"])
    assert (await row_of(world.db)).locked_why is None
    assert (refused["status"], refused["waiting"]["for"]) == ("queued", "fal")
    assert (await world.job(other["id"]))["status"] == "submitted"


async def test_only_what_was_sent_since_locks_or_opens_an_account(db):
    intent = await make.taken(db, await make.make_tenant(db))
    sent_at = intent.attempt.created_at

    locks = await db.run(partial(accounts.refused, name="default", answer=LOCKED, sent_at=sent_at))
    opened_by_old = await db.run(partial(accounts.accepted, name="default", sent_at=sent_at))
    later = (await row_of(db)).since
    opens = await db.run(partial(accounts.accepted, name="default", sent_at=later))
    locked_by_old = await db.run(partial(accounts.refused, name="default", answer=LOCKED, sent_at=later))
    newest = (await row_of(db)).since
    locks_again = await db.run(partial(accounts.refused, name="default", answer=LOCKED, sent_at=newest))

    assert (locks, opened_by_old, opens, locked_by_old, locks_again) == (True, False, True, False, True)


async def test_each_refused_probe_waits_longer_up_to_a_bound(db):
    intent = await make.taken(db, await make.make_tenant(db))
    waits = []
    for _ in range(9):
        since = (await row_of(db)).since
        # In one transaction, for which no time passes.
        async with db.session() as session:
            sent_at = max(since, intent.attempt.created_at)
            await accounts.refused(session, "default", LOCKED, sent_at=sent_at)
            left = select(func.extract("epoch", FalAccount.probe_at - func.now()))
            waits.append(float((await session.scalars(left)).one()))
        await probe_is_due(db)
        await db.run_few(lambda ask: ask((accounts.PROBING, {"names": ["default"], "lease_s": 0}), commit=True))

    assert 4 < waits[0] <= accounts.FIRST_PROBE_S < waits[3] < waits[6]
    assert max(waits) <= accounts.LONGEST_PROBE_S


async def test_two_workers_let_one_probe_through(world):
    for _ in range(3):
        await world.order()
    await lock(world)
    await world.dispatch()
    await probe_is_due(world.db)

    first = await world.dispatcher.take(10)
    second = await replace(world.dispatcher, owner="other").take(10)

    for piece in first:
        piece.close()
    assert (len(first), len(second)) == (1, 0)


async def test_a_job_is_asked_about_with_the_key_of_its_account(worlds):
    world = await worlds(fal_accounts=TWO)
    for _ in range(2):
        await world.order("[[sim: webhook=never]] a mecha")
    await world.dispatch()
    asked = []

    def hear(request):
        asked.append(request.headers["authorization"])
        return httpx.Response(502)

    async with httpx.AsyncClient(transport=httpx.MockTransport(hear)) as http:
        known = Accounts(
            Account(name, FalClient(http, queue_url="http://fal/queue", key=f"of-{name}"), platform, uploads)
            for name in ("default", "second")
            for platform in [Platform(http, api_url="http://fal/v1", key=name)]
            for uploads in [FalStorage(http, http, rest_url="http://fal/rest", key=name)]
        )
        await make.let_time_pass(world.db)
        await run_once(replace(world.reconciler, accounts=known))

    assert sorted(asked) == ["Key of-default", "Key of-second"]


async def test_an_account_that_is_gone_is_an_answer_that_does_not_come(world):
    job = await world.order("[[sim: webhook=never]] a mecha")
    await world.dispatch()
    async with world.db.session() as session:
        await session.execute(update(Attempt).values(fal_account="gone"))
    await make.let_time_pass(world.db)

    asked = await world.ask()

    assert asked == 1
    assert (await world.job(job["id"]))["status"] == "submitted"


@pytest.mark.parametrize(
    ("settings", "waits_for"), [({"tenant_at_once": 1}, "tenant_limit"), ({"fal_at_once": 1}, "account_limit")]
)
async def test_a_job_says_which_limit_it_waits_for(worlds, settings, waits_for):
    world = await worlds(**settings)
    first, second = [await world.order() for _ in range(2)]

    await world.dispatch()

    jobs = (await world.api.get("/v1/jobs")).json()["data"]
    assert (await world.job(second["id"]))["waiting"]["for"] == waits_for
    assert {job["id"]: job["waiting"]["for"] for job in jobs} == {first["id"]: "fal_queue", second["id"]: waits_for}
    await world.at_fal(60)
    await world.ended(first["id"])
    assert (await world.job(second["id"]))["waiting"]["for"] == "dispatch"
    assert await world.dispatch() == 1


async def test_a_job_of_a_full_model_says_so(db):
    caller = await make.make_tenant(db)
    caps = Caps(models={make.O3: 1})
    jobs = [await make.accept(db, caller) for _ in range(2)]

    (intent,) = await db.run_few(partial(taking.take, owner="x", limit=9, lease_s=60, caps=caps))

    (other,) = [job for job in jobs if job.id != intent.job.id]
    assert await waiting.reasons(db, [other], caps) == {other.id: "model_limit"}
