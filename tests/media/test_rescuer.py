"""The loop that keeps results, against files that can't be kept, and several at once."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from functools import partial

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from app import clock, leases
from app.fal.messages import Outcome, Report
from app.http import download_transport, new_client
from app.jobs import lifecycle
from app.media import queries
from app.media import rescuer as rescuing
from app.media.download import Unfetched
from app.media.rescuer import Rescuer
from app.media.storage import Storage
from app.media.tables import Output
from app.worker import work
from tests import factories as make
from tests.media.test_download import TINY, says, serving, trickle
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


async def files_of(db, job):
    async with db.session() as session:
        return await queries.of_job(session, job.tenant_id, job.id)


def rescuer_of(db, tmp_path, http, **changes):
    rescuer = Rescuer(
        db=db,
        http=http,
        storage=Storage(None, tmp_path / "outputs"),
        settle=lifecycle.files_settled,
        owner="test",
        at_once=4,
        lease_s=60,
        limits=TINY,
    )
    return replace(rescuer, **changes)


@pytest.fixture
async def rescuer(db, tmp_path):
    async with new_client(0.2, transport=download_transport(allow_private=True)) as http:
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
    (file,) = await files_of(db, job)
    assert now.safe_error is not None
    assert (now.status, now.safe_at, now.safe_error["code"]) == ("succeeded", None, "too_large")
    assert (file.due_at, file.path) == (None, None)


async def test_a_file_that_trickles_is_given_up_and_tried_again_later(db, rescuer, tmp_path):
    async with serving(trickle) as url:
        job = await finished(db, url)
        await run_once(rescuer)

    (file,) = await files_of(db, job)
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
        (cut,) = await files_of(db, job)
        await make.let_time_pass(db)
        await run_once(rescuer)

    (file,) = await files_of(db, job)
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
    before = await files_of(db, job)

    members = [rescuing.Failed(row, reasons[row.number]) for row in rows]
    assert await db.run_one(partial(rescuing.failed, members=members)) == [None] * 3

    after = await files_of(db, job)
    assert [file.error and file.error["detail"] for file in after] == ["Reason 1.", None, "Reason 3."]
    assert [file.lease_owner for file in after] == [None, "a", None]
    assert [file.due_at < lease.due_at for file, lease in zip(after, before, strict=True)] == [True, False, True]


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


async def test_a_full_disk_is_told_and_tried_again(db, tmp_path):
    http, _ = answering(lambda request: httpx.Response(200, content=some(b"x")))
    (tmp_path / "outputs").write_text("a file, not a folder")
    job = await finished(db, "https://x.example/1")

    await run_once(rescuer_of(db, tmp_path, http))

    (file,) = await files_of(db, job)
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
    rescuer = rescuer_of(db, tmp_path, http, lease_s=0.15, limits=replace(TINY, whole_s=9, silence_s=9, grace_s=9))
    (piece,) = await rescuer.take(1)
    copying = asyncio.create_task(piece)
    await moving.wait()
    (before,) = await files_of(db, job)
    while (await files_of(db, job))[0].due_at == before.due_at:
        await asyncio.sleep(0.01)
    go_on.set()
    await copying

    (file,) = await files_of(db, job)
    assert (file.size, file.tries) == (2, 1)


async def test_a_commit_whose_answer_got_lost_keeps_the_copy(db, tmp_path, monkeypatch):
    http, _ = answering(lambda request: httpx.Response(200, content=some(b"x")))
    job = await finished(db, "https://x.example/1")
    rescuer = rescuer_of(db, tmp_path, http)

    async def twice(work, *, for_s):
        await db.run(work)
        return await db.run(work)

    monkeypatch.setattr(db, "insist", twice)
    await run_once(rescuer)

    (file,) = await files_of(db, job)
    assert await rescuer.storage.size(file.path) == 1


async def test_an_output_without_files_is_safe_at_once(db):
    intent = await make.taken(db, await make.make_tenant(db))
    await make.report(db, intent, Report("req-1", Outcome.SUCCEEDED, output={"text": "no file"}))

    assert (await make.look(db, intent.job)).safe_at is not None


async def test_a_second_report_adds_no_files(db):
    intent = await make.taken(db, await make.make_tenant(db))
    await make.report(db, intent, make.success())
    await make.report(db, intent, make.success())

    assert len(await files_of(db, intent.job)) == 1


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
        async with asyncio.timeout(10):
            while (await world.job(job["id"]))["safe_at"] is None:
                await world.at_fal(10)
        stop.set()
        await working
