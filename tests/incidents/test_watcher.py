"""Incidents open once, stay fresh, close by themselves, and tell of rows that are really there."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy import func, insert, select, text, update

from app.chores import Chore
from app.errors import NotFound
from app.fal.messages import Refused
from app.incidents import queries, watcher
from app.incidents.kinds import KINDS, MOST, Kind
from app.incidents.queries import IncidentClosed
from app.incidents.tables import Incident
from app.incidents.watcher import watch
from app.jobs import lifecycle
from app.jobs.tables import Attempt, FalAccount, Job
from app.media.download import Unfetched
from app.media.tables import Output
from app.verify.kept import kept
from app.verify.verifier import verify
from tests import factories as make
from tests.world import run_once

QUOTED = Decimal("2.10")


async def incidents(db, kind=None):
    async with db.session() as session:
        found = select(Incident).order_by(Incident.id)
        return (await session.scalars(found.where(Incident.kind == kind) if kind else found)).all()


async def only(db):
    (one,) = await incidents(db)
    return one


async def earlier(db, table, **ago):
    """Move columns of all rows of *table* into the past, by so many minutes."""
    values = {name: func.now() - timedelta(minutes=minutes) for name, minutes in ago.items()}
    async with db.session() as session:
        await session.execute(update(table).values(values))


async def dismiss(db, incident, why="seen to"):
    return await db.run(partial(queries.dismiss, incident_id=incident.id, by="user me", why=why))


# --- One incident ---------------------------------------------------------------------------------------------


TROUBLE = Kind(
    "trouble",
    "Trouble",
    "Do something.",
    """
    SELECT name AS subject, created_at AS since, done_at AS until, tries AS jobs, 0.5 AS amount,
        CAST('{}' AS jsonb) AS detail
    FROM chores
    """,
)


async def trouble(db, subject="here", jobs=1, minutes=0.0):
    """There is trouble now; it began and ended *minutes* from now."""
    when = func.now() + timedelta(minutes=minutes)
    async with db.session() as session:
        await session.merge(Chore(name=subject, tries=jobs, created_at=when, done_at=when))


async def peace(db):
    async with db.session() as session:
        await session.execute(text("DELETE FROM chores"))


async def look(db):
    return await watch(db, [TROUBLE])


async def test_trouble_opens_one_incident_however_many_watch(db):
    await trouble(db)

    assert await asyncio.gather(*(look(db) for _ in range(8))) == [[]] * 8

    one = await only(db)
    assert (one.kind, one.subject, one.jobs, one.amount, one.closed_at) == ("trouble", "here", 1, Decimal("0.5"), None)


async def test_many_watchers_of_much_trouble_do_not_lock_each_other_out(db):
    for n in range(20):
        await trouble(db, f"place {n}")

    assert await asyncio.gather(*(look(db) for _ in range(8))) == [[]] * 8

    assert len(await incidents(db)) == 20


async def test_while_it_lasts_it_stays_the_same_incident_and_tells_the_present(db):
    await trouble(db)
    await look(db)
    before = await only(db)
    await trouble(db, jobs=7)

    await look(db)

    after = await only(db)
    assert (after.id, after.opened_at, after.jobs) == (before.id, before.opened_at, 7)
    assert after.last_seen_at > before.last_seen_at


async def test_it_closes_when_the_trouble_is_gone_and_comes_back_as_a_new_one(db):
    await trouble(db)
    await look(db)
    await peace(db)
    await look(db)
    assert (await only(db)).closed_at is not None
    await trouble(db)

    await look(db)

    old, new = await incidents(db)
    assert (old.closed_at is None, new.closed_at is None) == (False, True)


async def test_trouble_in_one_place_closes_nothing_of_another(db):
    await trouble(db, "here")
    await trouble(db, "there")
    await look(db)
    await peace(db)
    await trouble(db, "there")

    await look(db)

    assert {each.subject for each in await incidents(db) if each.closed_at is None} == {"there"}


async def test_a_look_from_before_closes_nothing_that_was_seen_later(db):
    await trouble(db)
    await look(db)
    await peace(db)
    await earlier(db, Incident, last_seen_at=-1)

    await look(db)

    assert (await only(db)).closed_at is None


async def test_a_look_from_before_opens_nothing_that_was_closed_later(db):
    await trouble(db)
    await look(db)
    await earlier(db, Incident, closed_at=-1)

    await look(db)

    assert len(await incidents(db)) == 1


async def test_a_kind_that_cannot_be_looked_for_closes_nothing_and_stops_nobody(db):
    await trouble(db)
    await look(db)
    broken = replace(TROUBLE, sql="SELECT nothing FROM nowhere")
    other = replace(TROUBLE, name="other")

    assert await watch(db, [broken, other]) == ["trouble"]

    assert {(each.kind, each.closed_at) for each in await incidents(db)} == {("trouble", None), ("other", None)}


async def test_what_is_dismissed_stays_closed_for_the_same_facts(db):
    await trouble(db)
    await look(db)
    await dismiss(db, await only(db))

    await look(db)

    one = await only(db)
    assert one.closed_at is not None
    assert (one.dismissed_by, one.dismissed_why) == ("user me", "seen to")


async def test_what_is_dismissed_opens_again_for_new_facts(db):
    await trouble(db)
    await look(db)
    await dismiss(db, await only(db))
    await trouble(db, minutes=5)
    await trouble(db, "elsewhere", minutes=-5)

    await look(db)

    assert [(each.subject, each.closed_at) for each in (await incidents(db))[1:]] == [
        ("elsewhere", None),
        ("here", None),
    ]


async def test_dismissing_twice_changes_nothing_and_what_healed_cannot_be_dismissed(db):
    await trouble(db)
    await look(db)
    first = await dismiss(db, await only(db))
    again = await dismiss(db, first, "another reason")
    assert (again.dismissed_at, again.dismissed_why) == (first.dismissed_at, "seen to")
    await trouble(db, minutes=5)
    await look(db)
    await peace(db)
    await look(db)

    with pytest.raises(IncidentClosed):
        await dismiss(db, (await incidents(db))[1])
    with pytest.raises(NotFound):
        await db.run(partial(queries.dismiss, incident_id=UUID(int=0), by="user me", why="x"))


# --- Each kind, by real rows ----------------------------------------------------------------------------------


@pytest.fixture
async def intent(db):
    return await make.taken(db, await make.make_tenant(db))


async def finished(db, intent):
    await make.submit(db, intent)
    await make.report(db, intent, make.success())


async def test_a_healthy_deployment_has_no_incidents(db, intent):
    await finished(db, intent)
    await make.accept(db, await make.make_tenant(db))

    assert await watch(db) == []

    assert await incidents(db) == []


async def test_a_lost_submit_is_one_after_a_while_until_it_is_resolved(db, intent):
    await db.run(partial(lifecycle.lost, key=make.key_of(intent), why="cut off"))
    await watch(db)
    assert await incidents(db) == []
    await earlier(db, Attempt, answered_at=20)

    await watch(db)

    one = await only(db)
    assert (one.kind, one.jobs, one.amount) == ("submit_unknown", 1, QUOTED)
    assert one.detail == {"jobs": [str(intent.job.id)], "at_least": False}
    refused = Refused(None, "fal", {"code": "x", "title": "No.", "detail": None, "retryable": True})
    await db.run(partial(lifecycle.refused, key=make.key_of(intent), answer=refused, wait_s=60))
    await watch(db)
    assert (await only(db)).closed_at is not None


@pytest.mark.parametrize(("minutes", "expected_minutes", "late"), [(59, 1, 0), (61, 1, 1), (90, 30, 0), (160, 30, 1)])
async def test_what_fal_has_for_far_too_long_is_overdue(db, intent, minutes, expected_minutes, late):
    await make.submit(db, intent)
    await earlier(db, Job, submitted_at=minutes, expected_at=minutes - expected_minutes)

    await watch(db)

    assert [(each.kind, each.jobs, each.amount) for each in await incidents(db)] == [("overdue", 1, QUOTED)] * late


@pytest.mark.parametrize(
    ("step", "kind", "minutes"),
    [("queued", "backlog", 60), ("submitting", "hanging", 15), ("submitted", "hanging", 15)],
)
async def test_a_next_step_that_nobody_takes_is_one_until_somebody_does(db, step, kind, minutes):
    caller = await make.make_tenant(db)
    await make.accept(db, caller)
    if step != "queued":
        (intent,) = await make.take(db)
        if step == "submitted":
            await make.submit(db, intent)
    await earlier(db, Job, due_at=minutes - 5)
    await watch(db)
    assert await incidents(db) == []
    await earlier(db, Job, due_at=minutes + 5)

    await watch(db)

    one = await only(db)
    assert (one.kind, one.jobs, one.amount) == (kind, 1, QUOTED)
    await make.let_time_pass(db)
    await watch(db)
    assert (await only(db)).closed_at is not None


async def test_a_locked_account_is_one_for_all_its_jobs_until_it_opens(db):
    caller = await make.make_tenant(db)
    await make.accept(db, caller)
    await make.accept(db, caller)
    locked = {"locked_why": "account_locked", "locked_detail": "Exhausted balance.", "probe_at": func.now()}
    async with db.session() as session:
        await session.execute(insert(FalAccount).values(name="studio", **locked))

    await watch(db)

    one = await only(db)
    assert (one.kind, one.subject, one.jobs, one.amount) == ("account_locked", "studio", 2, 2 * QUOTED)
    assert one.detail["said"] == "Exhausted balance."
    async with db.session() as session:
        await session.execute(update(FalAccount).values(locked_why=None, probe_at=None))
    await watch(db)
    assert (await only(db)).closed_at is not None


async def given_up(db, intent, minutes):
    await make.keep(db, intent.job, Unfetched("too_large", "No."))
    await earlier(db, Output, given_up_at=minutes)


async def test_a_result_that_was_given_up_is_one_until_it_is_dismissed(db, intent):
    await finished(db, intent)
    await given_up(db, intent, minutes=5)

    await watch(db)

    one = await only(db)
    assert (one.kind, one.jobs, one.amount) == ("rescue_failed", 1, QUOTED)
    await dismiss(db, one)
    await watch(db)
    assert (await only(db)).closed_at is not None
    (kind,) = (kind for kind in KINDS if kind.name == "rescue_failed")
    assert await db.run_few(partial(watcher._is_quiet, kind=kind))
    second = await make.taken(db, await make.make_tenant(db))
    await make.submit(db, second, "req-2")
    await make.report(db, second, make.success("req-2"))
    async with db.session() as session:
        error = {"code": "too_large", "detail": "No."}
        mine = update(Output).where(Output.job_id == second.job.id)
        await session.execute(mine.values(due_at=None, error=error, given_up_at=func.now() - timedelta(minutes=1)))
    await watch(db)
    new = (await incidents(db))[1]
    assert (new.closed_at, new.jobs, new.detail["jobs"]) == (None, 1, [str(second.job.id)])


async def test_the_loop_that_gives_a_result_up_says_when(world):
    order = await world.order()
    await world.dispatch()
    await world.at_fal(10)
    await world.ended(order["id"])
    async with world.db.session() as session:
        await session.execute(update(Output).values(tries=50, source_url="http://fal/files/none.mp4"))
        await session.execute(update(Output).values(vanishes_at=func.now() - timedelta(days=9)))
    assert await world.rescue() == 1
    await earlier(world.db, Output, given_up_at=5)

    await run_once(world.parts.chores())

    assert {each.kind for each in await incidents(world.db)} == {"rescue_failed"}
    assert (await world.job(order["id"]))["status"] == "succeeded"


@pytest.mark.parametrize(("hours_left", "age", "late"), [(23, 10, 1), (25, 10, 0), (23, 1, 0)])
async def test_a_result_that_is_not_safe_and_about_to_vanish_is_late(db, intent, hours_left, age, late):
    await finished(db, intent)
    await earlier(db, Output, vanishes_at=-60 * hours_left, created_at=age)

    await watch(db)

    assert [(each.kind, each.amount) for each in await incidents(db)] == [("rescue_late", QUOTED)] * late


async def test_files_of_one_job_count_once(db, intent):
    await finished(db, intent)
    async with db.session() as session:
        await session.execute(
            text("""
            INSERT INTO outputs (tenant_id, job_id, number, source_url, vanishes_at, due_at)
            SELECT tenant_id, job_id, n, source_url, vanishes_at, due_at FROM outputs, generate_series(2, 4) AS n
            """)
        )
    await earlier(db, Output, vanishes_at=-60, created_at=10)

    await watch(db)

    assert ((await only(db)).jobs, (await only(db)).amount) == (1, QUOTED)


async def proved(db):
    """The daily proof has run."""
    async with db.session() as session:
        chore = await session.get(Chore, "verify")
    result = kept(await verify(db), chore and chore.result)
    async with db.session() as session:
        await session.merge(Chore(name="verify", result=result))


async def test_a_broken_promise_is_one_until_a_later_proof_holds(db, intent):
    unbalance = text("UPDATE accounts SET available = available + 1")
    async with db.session() as session:
        await session.execute(unbalance)
    await proved(db)
    await watch(db)
    first = await only(db)
    await proved(db)
    await watch(db)
    assert ((await only(db)).id, (await only(db)).since) == (first.id, first.since)
    assert (first.kind, first.subject, first.jobs) == ("verify_failed", "account_is_its_entries", 1)
    assert first.detail == {"found": [str(intent.job.tenant_id)]}
    async with db.session() as session:
        await session.execute(text("UPDATE accounts SET available = available - 1"))

    await proved(db)
    await watch(db)

    assert (await only(db)).closed_at is not None


async def test_a_broken_promise_that_was_dismissed_opens_again_when_more_breaks_it(db, intent):
    async with db.session() as session:
        await session.execute(text("UPDATE accounts SET available = available + 1"))
    await proved(db)
    await watch(db)
    await dismiss(db, await only(db))
    await proved(db)
    await watch(db)
    assert len(await incidents(db)) == 1
    caller = await make.make_tenant(db)
    async with db.session() as session:
        break_it = text("UPDATE accounts SET available = available + 1 WHERE tenant_id = :tenant")
        await session.execute(break_it, {"tenant": caller.tenant_id})

    await proved(db)
    await watch(db)

    old, new = await incidents(db)
    assert (new.subject, new.closed_at, new.jobs, new.since) == (old.subject, None, 2, old.since)


async def test_a_chore_that_keeps_failing_is_one(db):
    async with db.session() as session:
        session.add_all([Chore(name="prune_inbox", tries=5), Chore(name="verify", tries=4)])

    await watch(db)

    assert ((await only(db)).kind, (await only(db)).subject) == ("chore_failed", "prune_inbox")


async def test_no_prompt_gets_into_an_incident(db, intent):
    await db.run(partial(lifecycle.lost, key=make.key_of(intent), why="cut off"))
    await earlier(db, Attempt, answered_at=20)
    await earlier(db, Job, due_at=20)
    await watch(db)

    assert {each.kind for each in await incidents(db)} == {"submit_unknown", "hanging"}
    assert "mecha" not in str([vars(each) for each in await incidents(db)])


def test_every_kind_says_what_it_is_and_what_to_do():
    names = [kind.name for kind in KINDS]

    assert len(set(names)) == len(names)
    for kind in KINDS:
        assert kind.title
        assert "callsheet " in kind.todo, kind.name
        assert kind.name in {"verify_failed", "chore_failed"} or f"LIMIT {MOST}" in kind.sql


async def test_the_worker_watches_by_itself_and_says_so(world):
    async with world.db.session() as session:
        assert not (await queries.watched(session, 15)).going_on

    assert await run_once(world.parts.chores()) == 8

    async with world.db.session() as session:
        watch_ = await queries.watched(session, 15)
        await session.execute(update(Chore).values(done_at=func.now() - timedelta(minutes=2)))
    assert (watch_.going_on, watch_.blind) == (True, [])
    async with world.db.session() as session:
        assert not (await queries.watched(session, 15)).going_on
        assert (await queries.watched(session, 60)).going_on
