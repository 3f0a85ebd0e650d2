"""The loop that keeps results, against files that can't be kept, and several at once."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from operator import attrgetter

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from app import clock, leases
from app.fal.messages import Outcome, Report
from app.http import download_transport, new_client
from app.jobs import keeping
from app.media import rescuer as rescuing
from app.media.download import Unfetched
from app.media.rescuer import Ended, Kept, Rescuer
from app.media.storage import Storage
from app.media.tables import Output
from app.verify.verifier import verify
from app.worker import work
from tests import factories as make
from tests.callbacks import rows as callbacks
from tests.media.test_download import HASTY, SMALL, says, serving, trickle
from tests.media.test_storage import some
from tests.world import build, run_once


async def finished(db, *urls, caller=None):
    """A succeeded job with these files."""
    intent = await make.taken(db, caller or await make.make_tenant(db))
    request_id = f"req-{intent.job.id}"
    await make.submit(db, intent, request_id)
    output = {"video": {"url": urls[0], "content_type": "video/mp4"}, "more": [{"url": url} for url in urls[1:]]}
    await make.report(db, intent, Report(request_id, Outcome.SUCCEEDED, output=output))
    return intent.job


def rescuer_of(db, tmp_path, http, **changes):
    rescuer = Rescuer(
        db=db,
        http=http,
        storage=Storage(None, tmp_path / "outputs"),
        note=keeping.note_ended,
        owner="test",
        at_once=4,
        lease_s=60,
        limits=SMALL,
    )
    return replace(rescuer, **changes)


@pytest.fixture
async def rescuer(db, tmp_path):
    async with new_client(20, transport=download_transport(allow_private=True)) as http:
        yield rescuer_of(db, tmp_path, http)


def answering(answers: Callable[[httpx.Request], httpx.Response]) -> tuple[httpx.AsyncClient, list[str]]:
    """A client whose addresses answer as told, and what it was asked for."""
    asked: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return answers(request)

    return new_client(1, transport=httpx.MockTransport(answer)), asked


async def test_a_file_that_is_too_large_is_refused_and_the_job_stays_succeeded(db, rescuer):
    async with serving(says("200 OK\r\nContent-Length: 5000000000", b"x")) as url:
        job = await finished(db, url)
        await run_once(rescuer)

    now = await make.look(db, job)
    (file,) = await make.files_of(db, job)
    assert now.safe_error is not None
    assert (now.status, now.safe_at, now.safe_error["code"]) == ("succeeded", None, "too_large")
    assert (file.due_at, file.path) == (None, None)


async def test_a_file_that_trickles_is_given_up_and_tried_again_later(db, rescuer, tmp_path):
    async with serving(trickle) as url:
        job = await finished(db, url)
        await run_once(replace(rescuer, limits=HASTY))

    (file,) = await make.files_of(db, job)
    assert (file.error["code"], file.tries) == ("too_slow", 1)
    assert file.due_at > clock.now()
    assert (await make.look(db, job)).safe_error is None
    assert not [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()]


async def test_a_copy_that_was_cut_off_is_thrown_away_and_fetched_again(db, rescuer, tmp_path):
    answers = [says("200 OK\r\nContent-Length: 100", b"half"), says("200 OK\r\nContent-Length: 5", b"whole")]

    async def serve(writer):
        await answers.pop(0)(writer)

    async with serving(serve) as url:
        job = await finished(db, url)
        await run_once(rescuer)
        (cut,) = await make.files_of(db, job)
        await make.let_time_pass(db)
        await run_once(rescuer)

    (file,) = await make.files_of(db, job)
    assert (cut.error["code"], cut.safe_at) == ("cut_off", None)
    assert (file.size, file.error, file.measured_seconds) == (5, None, None)
    assert await rescuer.storage.read(file.path, 0, 5) == b"whole"
    assert (await make.look(db, job)).safe_at is not None


async def test_what_fails_together_is_noted_each_for_itself_and_who_lost_a_lease_notes_nothing(db):
    job = await finished(db, "https://fal.example/1", "https://fal.example/2", "https://fal.example/3")
    rows = await db.run(partial(leases.claim, table=Output, owner="a", limit=3, lease_s=60))
    reasons = {row.number: Unfetched("cut_off", f"Reason {row.number}.") for row in rows}
    async with db.session() as session:
        await session.execute(text("UPDATE outputs SET lease_token = lease_token + 1 WHERE number = 2"))
    before = await make.files_of(db, job)

    members = [rescuing.Failed(row, reasons[row.number]) for row in rows]
    assert await db.run_one(partial(rescuing.failed, members=members)) == [None] * 3

    after = await make.files_of(db, job)
    assert [file.error and file.error["detail"] for file in after] == ["Reason 1.", None, "Reason 3."]
    assert [file.lease_owner for file in after] == [None, "a", None]
    assert [file.due_at < lease.due_at for file, lease in zip(after, before, strict=True)] == [True, False, True]


def copied(row, path="a/b"):
    return Ended(row, Kept(path, 7, b"7" * 32, "video/webm", Decimal("5.25")))


async def note(db, *members):
    return await db.run_few(partial(keeping.note_ended, members=members))


async def leased(db, jobs):
    """The one file of each job, taken."""
    rows = await db.run(partial(leases.claim, table=Output, owner="a", limit=9, lease_s=60))
    return [next(row for row in rows if row.job_id == job.id) for job in jobs]


async def test_what_ends_together_is_noted_each_for_itself_and_told_to_whom_it_concerns(db):
    ours, theirs = await make.make_tenant(db), await make.make_tenant(db)
    await callbacks.make_endpoint(db, ours, "https://ours.example/", events=["job.safe"])
    jobs = [await finished(db, f"https://fal.example/{n}", caller=theirs if n == 2 else ours) for n in range(4)]
    safe, gone, unheard, late = await leased(db, jobs)
    async with db.session() as session:
        await session.execute(text("UPDATE outputs SET lease_token = 9 WHERE job_id = :id"), {"id": late.job_id})
    error = Unfetched("gone", "Its server answers 404.")

    assert await note(db, copied(late), Ended(gone, None, error), copied(unheard), copied(safe)) == [
        False,
        True,
        True,
        True,
    ]

    now = [await make.look(db, job) for job in jobs]
    assert [job.safe_at is not None for job in now] == [True, False, True, False]
    assert [job.safe_error for job in now] == [None, error.told(), None, None]
    assert [job.measured_seconds for job in now] == [Decimal("5.250"), None, Decimal("5.250"), None]
    (kept,) = await make.files_of(db, jobs[0])
    assert (kept.path, kept.size, kept.sha256, kept.content_type) == ("a/b", 7, b"7" * 32, "video/webm")
    (told,) = await callbacks.deliveries(db, ours)
    assert (told.type, told.job_id, told.sequence) == ("job.safe", jobs[0].id, now[0].event_count + 1)
    assert await callbacks.deliveries(db, theirs) == []
    assert (await verify(db)).ok


async def test_what_was_noted_by_a_commit_whose_answer_got_lost_is_noted(db):
    caller = await make.make_tenant(db)
    await callbacks.make_endpoint(db, caller, "https://ours.example/", events=["job.safe"])
    job = await finished(db, "https://fal.example/1", caller=caller)
    (row,) = await leased(db, [job])

    assert await note(db, copied(row)) == [True]
    assert await note(db, copied(row)) == [True]
    assert await note(db, copied(row, "somebody/else's")) == [False]
    assert len(await callbacks.deliveries(db, caller)) == 1


async def test_files_of_a_job_that_end_side_by_side_make_it_safe_once(db):
    caller = await make.make_tenant(db)
    await callbacks.make_endpoint(db, caller, "https://ours.example/", events=["job.safe"])
    job = await finished(db, *(f"https://fal.example/{n}" for n in range(6)), caller=caller)
    rows = await db.run(partial(leases.claim, table=Output, owner="a", limit=9, lease_s=60))

    await asyncio.gather(*(note(db, *map(copied, rows[at : at + 2])) for at in range(0, 6, 2)))

    assert (await make.look(db, job)).safe_at is not None
    assert len(await callbacks.deliveries(db, caller)) == 1


async def test_a_job_says_why_the_first_of_its_lost_files_is(db):
    job = await finished(db, *(f"https://fal.example/{n}" for n in range(3)))
    rows = sorted(
        await db.run(partial(leases.claim, table=Output, owner="a", limit=9, lease_s=60)), key=attrgetter("number")
    )

    await note(db, Ended(rows[2], None, Unfetched("too_large", "No.")), copied(rows[0]))
    before = await make.look(db, job)
    await note(db, Ended(rows[1], None, Unfetched("gone", "It is gone.")))

    assert (before.safe_at, before.safe_error) == (None, None)
    after = await make.look(db, job)
    assert after.safe_error is not None
    assert (after.safe_at, after.safe_error["code"], after.measured_seconds) == (None, "gone", Decimal("5.250"))


async def test_a_redirect_to_a_private_address_is_given_up(db, rescuer):
    async with serving(says("302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0")) as url:
        job = await finished(db, url)
        for _ in range(5):
            await run_once(rescuer)
            await make.let_time_pass(db)

    now = await make.look(db, job)
    assert now.safe_error is not None
    assert now.safe_error["code"] == "address_refused"


async def test_a_job_is_safe_once_all_its_files_are(db, tmp_path):
    http, _ = answering(lambda request: httpx.Response(200, content=some(b"x" * 20)))
    job = await finished(db, "https://x.example/1", "https://x.example/2", "https://x.example/3")
    rescuer = rescuer_of(db, tmp_path, http)

    await asyncio.gather(*await rescuer.take(1))
    part = await make.look(db, job)
    await run_once(rescuer)

    assert part.safe_at is None
    assert (await make.look(db, job)).safe_at is not None


async def test_what_vanishes_soonest_is_copied_first(db, tmp_path):
    http, asked = answering(lambda request: httpx.Response(200, content=some(b"x")))
    soon = f"https://x.example/soon?Expires={int((clock.now() + timedelta(minutes=5)).timestamp())}"
    await finished(db, "https://x.example/late")
    await finished(db, soon)

    await asyncio.gather(*await rescuer_of(db, tmp_path, http).take(1))

    assert asked == [soon]


async def test_a_worker_that_lost_its_lease_leaves_its_successors_copy_alone(db, tmp_path):
    failing = httpx.MockTransport(lambda _: httpx.Response(503))
    job = await finished(db, "https://x.example/1")
    await run_once(rescuer_of(db, tmp_path, new_client(1, transport=failing)))
    http, _ = answering(lambda request: httpx.Response(200, content=some(b"x")))
    await make.let_time_pass(db)

    (late,) = await rescuer_of(db, tmp_path, http).take(1)
    await make.let_time_pass(db)
    await run_once(rescuer_of(db, tmp_path, http, owner="successor"))
    await late

    (file,) = await make.files_of(db, job)
    assert file.safe_at is not None
    assert await Storage(None, tmp_path / "outputs").size(file.path) == 1


async def test_a_full_disk_is_told_and_tried_again(db, tmp_path):
    http, _ = answering(lambda request: httpx.Response(200, content=some(b"x")))
    (tmp_path / "outputs").write_text("a file, not a folder")
    job = await finished(db, "https://x.example/1")

    await run_once(rescuer_of(db, tmp_path, http))

    (file,) = await make.files_of(db, job)
    assert file.error["code"] == "storage_failed"
    assert file.due_at is not None


async def test_a_long_copy_keeps_its_lease(db, tmp_path):
    moving, go_on = asyncio.Event(), asyncio.Event()

    async def slow():
        yield b"x"
        moving.set()
        await go_on.wait()
        yield b"y"

    http, _ = answering(lambda request: httpx.Response(200, content=slow()))
    job = await finished(db, "https://x.example/1")
    rescuer = rescuer_of(db, tmp_path, http, lease_s=0.15)
    (piece,) = await rescuer.take(1)
    copying = asyncio.create_task(piece)
    await moving.wait()
    (before,) = await make.files_of(db, job)
    while (await make.files_of(db, job))[0].due_at == before.due_at:
        await asyncio.sleep(0.01)
    go_on.set()
    await copying

    (file,) = await make.files_of(db, job)
    assert (file.size, file.tries) == (2, 1)


async def test_a_commit_whose_answer_got_lost_keeps_the_copy(db, tmp_path, monkeypatch):
    http, _ = answering(lambda request: httpx.Response(200, content=some(b"x")))
    job = await finished(db, "https://x.example/1")
    rescuer = rescuer_of(db, tmp_path, http)

    async def twice(work, *, for_s):
        await db.run_few(work)
        return await db.run_few(work)

    monkeypatch.setattr(db, "insist_few", twice)
    await run_once(rescuer)

    (file,) = await make.files_of(db, job)
    assert await rescuer.storage.size(file.path) == 1


async def test_an_output_without_files_is_safe_at_once(db):
    intent = await make.taken(db, await make.make_tenant(db))
    await make.report(db, intent, Report("req-1", Outcome.SUCCEEDED, output={"text": "no file"}))

    assert (await make.look(db, intent.job)).safe_at is not None


async def test_a_second_report_adds_no_files(db):
    intent = await make.taken(db, await make.make_tenant(db))
    await make.report(db, intent, make.success())
    await make.report(db, intent, make.success())

    assert len(await make.files_of(db, intent.job)) == 1


@pytest.mark.parametrize(
    "change",
    [
        "safe_at = now()",
        "path = 'x'",
        "safe_at = now(), path = 'x', size = 0, sha256 = decode(repeat('00', 32), 'hex'), due_at = NULL",
        "safe_at = now(), path = 'x', size = 1, sha256 = NULL, due_at = NULL",
        "safe_at = now(), path = 'x', size = 1, sha256 = decode(repeat('00', 32), 'hex')",
        "due_at = NULL",
        "measured_seconds = 0",
    ],
)
async def test_postgres_refuses_what_is_not_safe_but_says_so(db, change):
    await finished(db, "https://x.example/1")

    with pytest.raises(IntegrityError):
        async with db.session() as session:
            await session.execute(text(f"UPDATE outputs SET {change}"))


async def test_the_worker_runs_it(database_url, tmp_path):
    async with AsyncExitStack() as stack:
        world = await build(stack, database_url, tmp_path, poll_s=0.02)
        job = await world.order()
        parts = world.parts
        stop = asyncio.Event()
        working = asyncio.create_task(work(parts, stop, drain_s=1))
        async with asyncio.timeout(60):
            while (await world.job(job["id"]))["safe_at"] is None:
                await world.at_fal(10)
        stop.set()
        await working
