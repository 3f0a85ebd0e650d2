"""Retention of jobs: long after its end a job gets thin, and its money, its proof and its files stay."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import count

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import DBAPIError

from app.callbacks.tables import DeliveryStatus
from app.jobs import lifecycle, thinning
from app.jobs.tables import Job, JobEvent
from app.jobs.thinning import thin
from app.media.download import Unfetched
from app.settings import Settings, SettingsError
from app.verify.verifier import verify
from tests import factories as make
from tests.callbacks import rows
from tests.world import run_once

YEAR = timedelta(days=365)


@pytest.fixture
async def caller(api, db):
    caller, key = await make.make_key(db)
    api.headers["Authorization"] = f"Bearer {key}"
    return caller


async def failed(db, caller, **order):
    intent = await make.taken(db, caller, make.an_order(**order))
    await make.submit(db, intent, f"req-{intent.job.id}")
    await make.report(db, intent, make.failure(f"req-{intent.job.id}"))
    return await make.look(db, intent.job)


async def delivered(db, caller, **order):
    """A job with its video in our own storage."""
    job = await rows.finished(db, caller, **order)
    await make.keep(db, job)
    return await make.look(db, job)


async def two_years_later(db):
    async with db.session() as session:
        for column in ("created_at", "submitted_at", "finished_at", "safe_at"):
            await session.execute(text(f"UPDATE jobs SET {column} = {column} - interval '2 years'"))


async def thin_ones(db):
    async with db.session() as session:
        return set(await session.scalars(select(Job.id).where(Job.thinned_at.is_not(None))))


async def proved(db):
    report = await verify(db)
    return [finding.check.name for finding in report.findings]


async def test_what_is_large_goes_and_what_proves_the_payment_stays(db, api, caller):
    job = await delivered(db, caller, metadata={"shot": "7"}, end_user="user-1")
    before = (await api.get(f"/v1/jobs/{job.id}")).json()
    entries = await make.entries_of(db, caller)
    await two_years_later(db)

    assert await thin(db, YEAR) == 1

    after = (await api.get(f"/v1/jobs/{job.id}")).json()
    moved = {"input", "output", "thinned_at", "created_at", "submitted_at", "finished_at", "safe_at"}
    assert (after["input"], after["output"]) == ({}, {})
    assert after["thinned_at"] is not None
    assert {name: value for name, value in after.items() if name not in moved} == {
        name: value for name, value in before.items() if name not in moved
    }
    (attempt,) = await make.attempts_of(db, job)
    assert (attempt.fal_request_id, attempt.status_url, attempt.response_url) == (f"req-{job.id}", None, None)
    assert await make.events_of(db, job) == []
    assert await make.entries_of(db, caller) == entries
    await make.assert_adds_up(db, caller)
    assert await proved(db) == []


async def test_its_video_can_still_be_fetched(db, api, caller):
    job = await delivered(db, caller)
    await two_years_later(db)
    await thin(db, YEAR)

    assert (await api.get(f"/v1/jobs/{job.id}/output")).status_code == 307


async def test_a_repeat_of_its_order_still_brings_the_same_job(db, api, caller):
    order = {"model": make.O3, "input": {"prompt": "a mecha lands", "duration": "5"}}
    again = partial(api.post, "/v1/jobs", json=order, headers={"Idempotency-Key": "order-1"})
    first = (await again()).json()
    await api.post(f"/v1/jobs/{first['id']}/cancel")
    await two_years_later(db)
    assert await thin(db, YEAR) == 1

    answer = await again()

    assert (answer.status_code, answer.json()["id"]) == (200, first["id"])


async def test_fals_word_that_comes_years_later_still_finds_its_attempt_and_changes_nothing(db, caller):
    intent = await make.taken(db, caller)
    await make.submit(db, intent)
    await make.report(db, intent, make.failure())
    await two_years_later(db)
    await thin(db, YEAR)

    assert await make.report(db, intent, make.success()) is lifecycle.Applied.ALREADY_ENDED

    assert await proved(db) == []


async def test_what_somebody_may_still_need_stays_whole(db, caller):
    unsafe = await rows.finished(db, caller)
    given_up = await rows.finished(db, caller)
    told = await delivered(db, caller, callback_url="https://caller.example/")
    lost = await make.taken(db, caller, make.an_order())
    await db.run(partial(lifecycle.lost, key=make.key_of(lost), why="test"))
    await make.keep(db, given_up, Unfetched("gone", "Its server answers 404."))
    young = await failed(db, caller)
    waiting = await make.accept(db, caller)
    await two_years_later(db)
    async with db.session() as session:
        await session.execute(update(Job).where(Job.id == young.id).values(finished_at=func.now() - YEAR / 2))

    assert await thin(db, YEAR) == 0

    for job in (waiting, unsafe, given_up, told, lost.job, young):
        assert (await make.look(db, job)).input, job.status
        assert await make.events_of(db, job)


@pytest.mark.parametrize(
    ("status", "ends"),
    [
        (DeliveryStatus.DELIVERED, {"due_at": None, "delivered_at": func.now()}),
        (DeliveryStatus.DEAD, {"due_at": None, "dead_why": "test"}),
        (DeliveryStatus.PENDING, {}),
    ],
)
async def test_a_job_is_whole_for_as_long_as_there_is_a_callback_about_it(db, caller, status, ends):
    job = await delivered(db, caller, callback_url="https://caller.example/")
    await two_years_later(db)
    for delivery in await rows.deliveries(db, caller):
        await rows.change(db, delivery, status=status, **ends)

    assert await thin(db, YEAR) == 0
    async with db.session() as session:
        await session.execute(text("DELETE FROM callback_deliveries"))

    assert await thin(db, YEAR) == 1
    assert await thin_ones(db) == {job.id}


async def test_a_run_takes_a_bounded_number_the_oldest_first(db, caller):
    jobs = [await failed(db, caller) for _ in range(7)]
    await two_years_later(db)

    assert await thin(db, YEAR, batch=2, batches=2) == 4
    assert await thin_ones(db) == {job.id for job in jobs[:4]}

    assert await thin(db, YEAR, batch=2) == 3
    assert await proved(db) == []


async def test_a_run_that_dies_between_two_batches_leaves_whole_ones_behind(db, caller, monkeypatch):
    for _ in range(5):
        await failed(db, caller)
    await two_years_later(db)
    batch, batches = thinning.thin_old, count()

    async def dies(session, older_than, limit):
        if next(batches) == 1:
            raise asyncio.CancelledError
        return await batch(session, older_than, limit)

    monkeypatch.setattr(thinning, "thin_old", dies)
    with pytest.raises(asyncio.CancelledError):
        await thin(db, YEAR, batch=2)
    monkeypatch.undo()

    assert len(await thin_ones(db)) == 2
    assert await proved(db) == []
    assert await thin(db, YEAR, batch=2) == 3
    assert await proved(db) == []


async def test_a_batch_that_dies_half_way_changes_nothing(db, caller):
    job = await failed(db, caller)
    await two_years_later(db)
    async with db.session() as other:
        # Its events can't be deleted yet, so its batch is caught with the job already changed.
        await other.execute(select(JobEvent).where(JobEvent.job_id == job.id).with_for_update())
        running = asyncio.create_task(thin(db, YEAR))
        kill = text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        async with asyncio.timeout(60):
            while not await db.run(lambda session: session.scalar(kill)):
                await asyncio.sleep(0.01)
        with pytest.raises(DBAPIError):
            await running

    assert await thin_ones(db) == set()
    assert (await make.look(db, job)).input
    assert await proved(db) == []


async def test_two_at_once_share_what_there_is_and_wait_for_nobody(db, caller):
    jobs = [await failed(db, caller) for _ in range(10)]
    await two_years_later(db)
    async with db.session() as other:
        held = select(Job).where(Job.id == jobs[0].id).with_for_update()
        assert (await other.scalars(held)).one()
        async with asyncio.timeout(60):
            thinned = await asyncio.gather(*(thin(db, YEAR, batch=2) for _ in range(3)))

    assert sum(thinned) + await thin(db, YEAR) == 10
    assert await proved(db) == []


async def test_who_pages_meanwhile_is_shown_every_job_once(db, api, caller):
    jobs = [await failed(db, caller) for _ in range(8)]
    await two_years_later(db)
    shown: list[str] = []
    cursor: str | None = ""

    while cursor is not None:
        page = (await api.get(f"/v1/jobs?limit=2{cursor and f'&cursor={cursor}'}")).json()
        shown += [job["id"] for job in page["data"]]
        cursor = page["next_cursor"]
        await thin(db, YEAR, batch=3, batches=1)

    assert shown == [str(job.id) for job in reversed(jobs)]
    assert len(await thin_ones(db)) == 8


async def test_who_follows_a_thin_job_is_told_to_stop(db, api, caller):
    job = await failed(db, caller)
    await two_years_later(db)
    await thin(db, YEAR)

    answer = await api.get(f"/v1/jobs/{job.id}/events")

    assert (answer.status_code, answer.content) == (204, b"")


async def test_a_thin_job_cant_be_tried_again_but_its_retry_can_still_be_asked_for(db, api, caller):
    tried, untried = await failed(db, caller), await failed(db, caller)
    retry = (await api.post(f"/v1/jobs/{tried.id}/retry")).json()
    await two_years_later(db)
    await thin(db, YEAR)

    refused = await api.post(f"/v1/jobs/{untried.id}/retry")
    repeated = await api.post(f"/v1/jobs/{tried.id}/retry")
    bulk = await api.post("/v1/jobs/retry", json={"dry_run": False})

    assert (refused.status_code, refused.json()["code"]) == (410, "thinned")
    assert (repeated.status_code, repeated.json()["id"]) == (200, retry["id"])
    assert bulk.json()["matched"] == 0


async def test_postgres_refuses_a_thin_job_that_has_not_ended(db, caller):
    job = await make.accept(db, caller)

    with pytest.raises(DBAPIError, match="only_ended_is_thinned"):
        async with db.session() as session:
            await session.execute(update(Job).where(Job.id == job.id).values(thinned_at=func.now()))


@pytest.mark.parametrize(("days", "broken", "thinned"), [(365, False, 1), (None, False, 0), (365, True, 0)])
async def test_the_worker_thins_only_if_told_to_and_while_no_promise_is_broken(world, days, broken, thinned):
    caller = await make.make_tenant(world.db)
    await failed(world.db, caller)
    await two_years_later(world.db)
    if broken:
        async with world.db.session() as session:
            await session.execute(
                text(
                    "INSERT INTO incidents (id, kind, since, until, jobs, amount, detail)"
                    " VALUES (gen_random_uuid(), 'verify_failed', now(), now(), 1, 0, '{}')"
                )
            )
    settings = world.parts.settings.model_copy(update={"jobs_days": days})

    await run_once(replace(world.parts, settings=settings).chores())

    assert len(await thin_ones(world.db)) == thinned


def test_jobs_must_outlast_their_callbacks():
    with pytest.raises(SettingsError, match="JOBS_DAYS"):
        Settings.read(jobs_days=29, _env_file=None)
    assert Settings.read(jobs_days=30, _env_file=None).jobs_days == 30
    assert Settings.read(_env_file=None).jobs_days is None
