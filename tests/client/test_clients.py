"""Both clients against Callsheet and the simulator, over real sockets that are cut where it hurts."""

import asyncio
import io
from decimal import Decimal

import pytest
from sqlalchemy import func, select

from app.client import (
    AsyncClient,
    Client,
    Conflict,
    InvalidOrder,
    JobNotSucceeded,
    NotFound,
    PaymentRequired,
    StillRunning,
    Unauthorized,
    Unreachable,
)
from app.client.calls import Calls
from app.files.tables import File
from app.jobs.tables import Job
from tests import factories as make
from tests.faults.proxy import Way
from tests.files import samples

INPUT = {"prompt": "a mecha lands", "duration": "5"}


async def count(world, table) -> int:
    async with world.db.session() as session:
        number: int = (await session.scalars(select(func.count()).select_from(table))).one()
    return number


async def test_a_job_from_quote_to_file(stage, tmp_path):
    quote = await stage.ask("quote", make.O3, INPUT)
    job = await stage.order(metadata={"campaign": "launch"}, end_user="user-42", max_cost="2.10")
    waiting = asyncio.create_task(stage.ask("wait", job.id))
    await stage.finish()
    done = await waiting
    await stage.world.rescue()
    size = await stage.ask("download", job.id, tmp_path / "mecha.mp4")

    assert (quote.amount, quote.is_maximum) == (Decimal("2.10"), False)
    assert (job.status, job.cost.held, job.cost.charged) == ("queued", Decimal("2.10"), None)
    assert job.waiting is not None
    assert job.waiting.waits_for == "dispatch"
    assert (done.status, done.ended, done.succeeded, done.cost.charged) == ("succeeded", True, True, Decimal("2.10"))
    assert (done.metadata, done.end_user) == ({"campaign": "launch"}, "user-42")
    assert done.finished_at > done.created_at
    assert done.raw["fal"]["request_id"]
    assert (tmp_path / "mecha.mp4").read_bytes() == (await stage.world.fal.get(done.video_url)).content
    assert size == (tmp_path / "mecha.mp4").stat().st_size
    assert (await stage.ask("balance")).spent == Decimal("2.10")
    assert (await stage.ask("get", job.id)).safe_at is not None


async def test_an_order_whose_answer_is_lost_is_one_job(stage):
    stage.proxy.faults.cut_after = {Way.DOWN: 1}

    job = await stage.order()

    assert await count(stage.world, Job) == 1
    assert job.id == (await stage.ask("get", job.id)).id
    assert stage.proxy.faults.cut_after == {}


async def test_an_order_that_is_given_up_can_be_taken_up_again_by_its_key(stage):
    stage.proxy.faults.swallow = frozenset({Way.DOWN})
    ordering = asyncio.create_task(stage.order())
    # Each try is heard and taken; none is answered.
    while await count(stage.world, Job) == 0:
        await asyncio.sleep(0.005)
    stage.proxy.faults.refuse = True
    stage.proxy.reset()
    with pytest.raises(Unreachable) as caught:
        await ordering
    stage.proxy.faults.refuse = False
    stage.proxy.faults.swallow = frozenset()

    assert caught.value.idempotency_key
    await stage.order(idempotency_key=caught.value.idempotency_key)
    assert await count(stage.world, Job) == 1


async def test_two_orders_are_two_jobs(stage):
    assert (await stage.order()).id != (await stage.order()).id


async def test_a_stream_that_is_cut_anywhere_brings_every_event_once_in_order(stage):
    job = await stage.order()
    await stage.finish()
    await stage.ask("wait", job.id)
    everything = [each.number for each in await stage.ask("events", job.id)]

    for cut in (1, *range(400, 1800, 100)):
        stage.proxy.faults.cut_after = {Way.DOWN: cut}
        events = await stage.ask("events", job.id)
        assert [each.number for each in events] == everything, cut

    assert everything == list(range(1, len(everything) + 1))
    assert (events[0].status, events[-1].status, events[-1].is_ending) == ("queued", "succeeded", True)


async def test_a_stream_is_followed_live_over_cuts_to_its_end(stage):
    job = await stage.order()
    following = asyncio.create_task(stage.ask("events", job.id))
    await stage.world.dispatch()
    stage.proxy.reset()
    await stage.world.at_fal(60)
    stage.proxy.reset()

    numbers = [each.number for each in await following if each.number is not None]

    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 4
    assert await stage.ask("events", job.id, after=str(numbers[-1])) == []
    assert [each.number for each in await stage.ask("events", job.id, after="2")] == numbers[2:]


async def test_the_events_of_all_jobs_resume_where_they_were(stage):
    first, second = await stage.order(), await stage.order()
    following = stage.client.events(after="0")

    async def take(number):
        if hasattr(following, "__anext__"):
            return [await anext(following) for _ in range(number)]
        return [await asyncio.to_thread(next, following) for _ in range(number)]

    seen = await take(1)
    stage.proxy.reset()
    seen += await take(1)

    assert [(each.job_id, each.number) for each in seen] == [(first.id, 1), (second.id, 1)]
    await (following.aclose() if hasattr(following, "aclose") else asyncio.to_thread(following.close))


async def test_lists_go_over_pages(stage, monkeypatch):
    monkeypatch.setattr("app.client.calls.PAGE", 2)
    made = [(await stage.order(metadata={"number": str(number)})).id for number in range(5)]

    assert [job.id for job in await stage.ask("list")] == made[::-1]
    assert [job.id for job in await stage.ask("list", oldest_first=True, status=["queued", "failed"])] == made
    assert [job.id for job in await stage.ask("list", metadata={"number": "3"})] == [made[3]]
    assert await stage.ask("list", status="failed") == []


async def test_a_failed_job_is_told_and_tried_again_once(stage):
    running = asyncio.create_task(
        stage.ask("run", make.O3, {**INPUT, "prompt": "[[sim: outcome=content_policy_violation]] x"})
    )
    while await count(stage.world, Job) == 0:
        await asyncio.sleep(0.005)
    await stage.finish()
    with pytest.raises(JobNotSucceeded) as caught:
        await running
    failed = caught.value.job
    stage.proxy.faults.cut_after = {Way.DOWN: 1}

    again = await stage.ask("retry", failed.id, max_cost=Decimal("1E+1"))

    assert failed.error is not None
    assert (failed.status, failed.error.code) == ("failed", "content_policy_violation")
    assert failed.cost.charged == 0
    assert (again.retry_of, again.status) == (failed.id, "queued")
    assert await count(stage.world, Job) == 2


async def test_a_job_can_be_canceled_and_is_free_if_fal_never_had_it(stage):
    job = await stage.order()

    stage.proxy.faults.cut_after = {Way.DOWN: 1}
    canceled = await stage.ask("cancel", job.id)

    assert (canceled.status, canceled.cost.held) == ("canceled", 0)
    with pytest.raises(NotFound) as caught:
        await stage.ask("download", job.id, io.BytesIO())
    assert caught.value.code == "no_output"


async def test_who_waits_no_longer_is_told_how_it_is(stage):
    job = await stage.order()

    with pytest.raises(StillRunning) as caught:
        await stage.ask("wait", job.id, 0)

    assert isinstance(caught.value, TimeoutError)
    assert (caught.value.job.id, caught.value.job.status) == (job.id, "queued")


@pytest.mark.parametrize("kind", ["path", "bytes"])
async def test_a_file_is_handed_in_and_used_even_if_the_connection_breaks(stage, tmp_path, kind):
    content = samples.png_of(400_000)
    (tmp_path / "first.png").write_bytes(content)
    stage.proxy.faults.cut_after = {Way.UP: 100_000}

    source = tmp_path / "first.png" if kind == "path" else content
    file = await stage.ask("upload", source, name=None if kind == "path" else "mine.png")

    assert (file.size, file.content_type) == (len(content), "image/png")
    assert file.name == ("first.png" if kind == "path" else "mine.png")
    assert file.url == f"callsheet://files/{file.id}"
    assert stage.proxy.faults.cut_after == {}
    assert await count(stage.world, File) >= 1


async def test_a_download_that_breaks_goes_on_where_it_was(stage, tmp_path):
    job = await stage.order()
    await stage.finish()
    done = await stage.ask("wait", job.id)
    await stage.world.rescue()
    original = (await stage.world.fal.get(done.video_url)).content
    stage.proxy.faults.cut_after = {Way.DOWN: 3_000}
    written = io.BytesIO()

    size = await stage.ask("download", job.id, written)

    assert stage.proxy.faults.cut_after == {}
    assert len(original) > 3_000
    assert (size, written.getvalue()) == (len(original), original)


async def test_what_is_not_safe_in_time_leaves_no_file(stage, tmp_path):
    job = await stage.order()
    (folder := tmp_path / "videos").mkdir()

    with pytest.raises(Conflict) as caught:
        await stage.ask("download", job.id, folder / "x.mp4", timeout_s=0)
    with pytest.raises(NotFound):
        await stage.ask("download", job.id.replace("0", "1"), folder / "x.mp4")

    assert caught.value.code == "not_safe_yet"
    assert list(folder.iterdir()) == []


async def test_problems_are_told_by_kind_with_every_fault(stage):
    with pytest.raises(InvalidOrder) as invalid:
        await stage.ask("create", make.O3, {"duration": "99"})
    with pytest.raises(NotFound) as unknown:
        await stage.ask("get", "0197a2b8-6c4e-7d31-9f00-3a5f0c1d2e4b")
    with pytest.raises(PaymentRequired) as dear:
        await stage.order(max_cost="0.01")

    error = invalid.value
    assert (error.status, error.code) == (422, "invalid_order")
    assert {fault.pointer for fault in error.errors} == {"/input/duration", "/input/prompt"}
    assert "/input/duration: " in str(error)
    assert error.request_id
    assert (unknown.value.code, dear.value.code) == ("not_found", "max_cost_exceeded")


async def test_a_wrong_key_is_told_and_never_shown(world, proxy):
    async with AsyncClient(f"http://127.0.0.1:{proxy.port}", "cs_wrong") as wrong:
        with pytest.raises(Unauthorized) as caught:
            await wrong.balance()
        assert "cs_wrong" not in f"{caught.value} {wrong!r} {wrong._address!r}"


async def test_a_service_that_restarts_is_waited_for(stage, monkeypatch):
    job = await stage.order()
    stage.proxy.faults.refuse = True
    stage.proxy.reset()
    monkeypatch.setattr(stage.client, "_calls", Calls(retries=0))
    waiting = asyncio.create_task(stage.ask("wait", job.id))
    await stage.finish()
    with pytest.raises(Unreachable):
        await stage.ask("get", job.id)

    stage.proxy.faults.refuse = False

    assert (await waiting).status == "succeeded"


def test_where_it_is_can_come_from_the_environment(monkeypatch):
    monkeypatch.delenv("CALLSHEET_URL", raising=False)
    with pytest.raises(ValueError, match="CALLSHEET_URL"):
        Client(api_key="cs_x")
    monkeypatch.setenv("CALLSHEET_URL", "http://127.0.0.1:8000/")
    monkeypatch.setenv("CALLSHEET_API_KEY", "cs_x")
    with Client() as client:
        assert (client._address.url, client._address.key) == ("http://127.0.0.1:8000", "cs_x")
