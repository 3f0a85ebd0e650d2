"""GET /v1/jobs/{id}/events: history, then live, resumed without a gap or a repeat, over real sockets."""

import asyncio
import socket
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import func, update

from app import clock, sse
from app.fal.messages import Progress
from app.jobs import lifecycle, news, settling
from app.jobs.hub import Hub
from app.jobs.tables import Job
from app.sse import EventStream
from app.tenants import known
from app.tenants.tables import ApiKey
from app.wakeup import NEWS, Announcer
from app.worker import work
from tests import factories as make
from tests.cli.commands import call
from tests.following import Event, followed, service, some, whole
from tests.jobs.test_settling import heard
from tests.world import build

SLOW = {"poll_s": 60}


@pytest.fixture
async def served(database_url):
    async with service(database_url) as found:
        yield found


@pytest.fixture
async def caller_and_client(db, served):
    caller, key = await make.make_key(db)
    async with served.client(key) as client:
        yield caller, client


def numbers(events: list[Event]) -> list[int]:
    return [event.number for event in events if event.number is not None]


async def finished(db, caller) -> Job:
    intent = await make.taken(db, caller)
    await make.submit(db, intent)
    await make.report(db, intent, make.success())
    return await make.look(db, intent.job)


async def test_history_comes_first_and_then_what_happens_until_the_end(db, caller_and_client):
    caller, client = caller_and_client
    intent = await make.taken(db, caller)

    async with followed(client, f"/v1/jobs/{intent.job.id}/events") as events:
        before = await some(events, 2)
        await make.submit(db, intent)
        (live,) = await some(events, 1)
        await make.report(db, intent, make.success())
        rest = [event async for event in events]

    assert [(event.id, event.data["status"]) for event in before] == [("1", "queued"), ("2", "submitting")]
    assert (live.kind, live.id, live.data["status"], live.data["why"]) == ("status", "3", "submitted", "fal has it")
    assert live.data["waiting"]["for"] == "fal_queue"
    assert live.data["waiting"]["expected_at"]
    assert [(event.id, event.data["status"], event.data["waiting"]) for event in rest] == [("4", "succeeded", None)]


async def test_whatever_was_seen_and_what_comes_after_it_are_the_whole_in_order_once(db, caller_and_client):
    caller, client = caller_and_client
    job = await finished(db, caller)
    path = f"/v1/jobs/{job.id}/events"
    everything = numbers(await whole(client, path))

    assert everything == list(range(1, job.event_count + 1))
    for seen in range(job.event_count):
        assert numbers(await whole(client, path, last=str(seen))) == everything[seen:]
        assert numbers(await whole(client, path, last_event_id=str(seen))) == everything[seen:]
    after = await client.get(path, headers={"Last-Event-ID": str(job.event_count)})
    assert (after.status_code, after.content) == (204, b"")


async def test_a_change_that_moves_no_status_is_told_without_an_id(db, caller_and_client):
    caller, client = caller_and_client
    intent = await make.taken(db, caller)
    await make.submit(db, intent)

    async with followed(client, f"/v1/jobs/{intent.job.id}/events") as events:
        await some(events, 3)
        job = await make.look(db, intent.job)
        await db.run(partial(lifecycle.progressed, job=job, progress=Progress(False, 7), ask_s=60))
        (progress,) = await some(events, 1)
        await make.report(db, intent, make.success())
        rest = [event async for event in events]

    assert (progress.kind, progress.id, progress.number) == ("progress", None, None)
    assert (progress.data["status"], progress.data["waiting"]["queue_position"]) == ("submitted", 7)
    assert numbers(rest) == [4]


async def test_who_resumes_with_nothing_missed_hears_how_the_job_waits_now(db, caller_and_client):
    caller, client = caller_and_client
    intent = await make.taken(db, caller)
    await make.submit(db, intent)

    async with followed(client, f"/v1/jobs/{intent.job.id}/events", last="3") as events:
        (first,) = await some(events, 1)

    assert (first.kind, first.id, first.data["waiting"]["queue_position"]) == ("progress", None, 0)


async def test_a_long_history_comes_whole(db, caller_and_client):
    caller, client = caller_and_client
    intent = await make.taken(db, caller)
    await make.submit(db, intent)

    async def back_and_forth(session):
        for running in [True, False] * 70:
            job = await session.get(Job, (intent.job.tenant_id, intent.job.id), populate_existing=True)
            await lifecycle.progressed(session, job, Progress(running, None if running else 1), ask_s=60)

    await db.run(back_and_forth)
    await make.report(db, intent, make.success())

    assert numbers(await whole(client, f"/v1/jobs/{intent.job.id}/events")) == list(range(1, 145))


async def test_an_announcement_is_heard_long_before_the_clock_says_so(db, database_url):
    caller, key = await make.make_key(db)
    intent = await make.taken(db, caller)
    await make.submit(db, intent)
    async with (
        service(database_url, **SLOW) as served,
        served.client(key) as client,
        Announcer(db.url, NEWS) as news,
        followed(client, f"/v1/jobs/{intent.job.id}/events") as events,
    ):
        await some(events, 3)
        for position, running in enumerate([True, False, True, False, True]):
            job = await make.look(db, intent.job)
            await db.run(partial(lifecycle.progressed, job=job, progress=Progress(running, position), ask_s=60))
            news.announce()
            # It waits for 20 seconds, and the clock would say so after 60.
            await some(events, 1)


async def settled(db, intent):
    """The job, ended by a webhook's set."""
    (job,) = await settling.write(db, [heard(intent, make.success())], set())
    return job


async def test_an_end_that_was_settled_here_is_told_without_a_look_and_as_it_is_kept(db, caller_and_client, served):
    caller, client = caller_and_client
    intent = await make.taken(db, caller)
    await make.submit(db, intent)
    path = f"/v1/jobs/{intent.job.id}/events"

    async with followed(client, path) as events, followed(client, path, last_event_id="2") as also:
        assert numbers(await some(events, 3)) == [1, 2, 3]
        assert numbers(await some(also, 1)) == [3]
        await served.holds_no_connection()
        served.app.state.hub._look = None  # whoever looked now would fail
        job = await settled(db, intent)
        await served.app.state.hub.ended(job)
        last, others = [event async for event in events], [event async for event in also]
    del served.app.state.hub._look

    kept = await whole(client, path, last="3")
    assert last == others == kept
    assert [event.data["status"] for event in kept] == ["succeeded"]


async def test_who_has_not_seen_what_was_before_an_end_is_told_all_in_order(db, database_url):
    caller, key = await make.make_key(db)
    intent = await make.taken(db, caller)
    path = f"/v1/jobs/{intent.job.id}/events"
    async with service(database_url, **SLOW) as served, served.client(key) as client, followed(client, path) as events:
        assert numbers(await some(events, 2)) == [1, 2]
        await make.submit(db, intent)
        await served.app.state.hub.ended(await settled(db, intent))
        served.app.state.hub.wake()

        assert numbers([event async for event in events]) == [3, 4]


async def test_a_look_that_began_before_an_end_was_told_does_not_tell_it_again(db, caller_and_client, served):
    caller, _ = caller_and_client
    hub: Hub = served.app.state.hub
    intent = await make.taken(db, caller)
    watch = hub.follow(caller, intent.job.id, seen=2)
    job = await settled(db, intent)
    rows = await db.run_one(partial(news.of_jobs, places=[watch.place()]))

    await hub.ended(job)
    told = await watch.take()
    watch.tell(rows, [b"again"])

    assert told is not None
    assert told.count(b"id: 3") == 1
    assert await watch.take() is None
    watch.leave()
    assert not hub._followers


async def test_an_end_is_on_its_way_to_who_follows_before_anybody_else_is_answered(db):
    caller, _ = await make.make_key(db)
    intent = await make.taken(db, caller)
    # Nobody looks: it is told by the one who settles it, or not at all.
    hub = Hub(db, poll_s=60, at_once=1, per_key=1)
    sent = [b""]

    async def receive():
        return await asyncio.get_running_loop().create_future()

    async def send(message):
        sent.append(message.get("body", b""))

    stream = EventStream(hub.follow(caller, intent.job.id, seen=2))
    following = asyncio.create_task(stream({}, receive, send))
    job = await settled(db, intent)

    await hub.ended(job)

    assert b"succeeded" in b"".join(sent)
    await following


async def test_two_hundred_streams_share_one_statement_a_look_and_hold_no_connection(db, database_url):
    caller, key = await make.make_key(db)
    intents = [await make.taken(db, caller) for _ in range(4)]
    async with service(database_url, database_pool=1, **SLOW) as served, AsyncExitStack() as stack:
        limits = httpx.Limits(max_connections=None)
        client = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=served.url,
                headers={"Authorization": f"Bearer {key}"},
                limits=limits,
                timeout=60,
                trust_env=False,
            )
        )
        streams = [
            await stack.enter_async_context(followed(client, f"/v1/jobs/{intents[n % 4].job.id}/events"))
            for n in range(200)
        ]
        for events in streams:
            assert numbers(await some(events, 2)) == [1, 2]
        await served.holds_no_connection()
        for n, intent in enumerate(intents):
            await make.submit(db, intent, f"req-{n}")
            await make.report(db, intent, make.success(f"req-{n}"))
        served.app.state.hub.wake()

        for events in streams:
            assert numbers([event async for event in events]) == [3, 4]
        assert len(served.app.state.hub) == 0


async def test_who_hangs_up_is_forgotten(db, caller_and_client, served):
    caller, client = caller_and_client
    intent = await make.taken(db, caller)
    hub: Hub = served.app.state.hub

    async with followed(client, f"/v1/jobs/{intent.job.id}/events") as events:
        await some(events, 2)
        assert len(hub) == 1

    async with asyncio.timeout(60):
        while len(hub):
            await asyncio.sleep(0.01)


async def test_who_stops_reading_is_cut_off_and_takes_no_memory(db, caller_and_client, served, monkeypatch):
    caller, client = caller_and_client
    intent = await make.taken(db, caller)
    monkeypatch.setattr(EventStream.__init__, "__kwdefaults__", {"stalled_s": 0.2})
    hub: Hub = served.app.state.hub
    request = (
        f"GET /v1/jobs/{intent.job.id}/events HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: {client.headers['Authorization']}\r\n\r\n"
    )
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", client.base_url.port))
        deaf.send(request.encode())
        async with asyncio.timeout(10):
            while not len(hub):
                await asyncio.sleep(0.01)
            (watch,) = hub._watches
            # As much as a flood of news would bring.
            flood = b": " + b"x" * 500_000 + b"\n\n"
            while len(hub):
                if watch.wants_more():
                    watch.give(flood)
                assert watch._ready.count(flood) <= 1
                await asyncio.sleep(0.01)

    await make.submit(db, intent)
    await make.report(db, intent, make.success())
    assert numbers(await whole(client, f"/v1/jobs/{intent.job.id}/events", last="2")) == [3, 4]


async def test_streams_end_at_once_when_the_service_stops_and_go_on_at_another(db, database_url):
    caller, key = await make.make_key(db)
    intent = await make.taken(db, caller)
    path = f"/v1/jobs/{intent.job.id}/events"
    async with service(database_url, stop_s=60) as first, first.client(key) as client, followed(client, path) as events:
        before = numbers(await some(events, 2))
        first.server.should_exit = True
        # By itself it would have no end, and the service would bear with it for longer than this.
        async with asyncio.timeout(40):
            rest = [event async for event in events]
    await make.submit(db, intent)
    await make.report(db, intent, make.success())
    async with service(database_url) as second, second.client(key) as client:
        after = numbers(await whole(client, path, last=str(before[-1])))

    assert (before, rest, after) == ([1, 2], [], [3, 4])


@pytest.mark.parametrize("column", ["revoked_at", "expires_at"])
async def test_a_key_that_stopped_working_ends_its_stream(db, database_url, column, monkeypatch):
    monkeypatch.setattr(Hub.__init__, "__kwdefaults__", {"check_s": 0.05})
    monkeypatch.setattr(known, "REMEMBERED_S", 0.0)
    caller, key = await make.make_key(db)
    other, others_key = await make.make_key(db)
    mine, theirs = await make.taken(db, caller), await make.taken(db, other)
    async with (
        service(database_url) as served,
        served.client(key) as client,
        served.client(others_key) as neighbour,
        followed(client, f"/v1/jobs/{mine.job.id}/events") as events,
        followed(neighbour, f"/v1/jobs/{theirs.job.id}/events") as others,
    ):
        await some(events, 2)
        await some(others, 2)
        past = func.now() - timedelta(seconds=1)
        async with db.session() as session:
            await session.execute(update(ApiKey).where(ApiKey.id == caller.key_id).values({column: past}))

        async with asyncio.timeout(60):
            assert [event async for event in events] == []
        assert (await client.get(f"/v1/jobs/{mine.job.id}/events")).status_code == 401
        await make.submit(db, theirs)
        assert numbers(await some(others, 1)) == [3]


async def test_more_streams_than_a_key_or_the_process_may_have_are_refused(db, database_url):
    caller, key = await make.make_key(db)
    other, others_key = await make.make_key(db)
    mine, theirs = await make.taken(db, caller), await make.taken(db, other)
    path = f"/v1/jobs/{mine.job.id}/events"
    async with (
        service(database_url, streams_at_once=2, streams_per_key=1) as served,
        served.client(key) as client,
        served.client(others_key) as neighbour,
        followed(client, path) as events,
    ):
        await some(events, 2)
        second = await client.get(path)
        async with followed(neighbour, f"/v1/jobs/{theirs.job.id}/events") as others:
            await some(others, 2)
            third = await neighbour.get("/v1/events")
        waits = await client.get(f"/v1/jobs/{mine.job.id}", headers={"Prefer": "wait=30"})

    assert (second.status_code, second.json()["code"]) == (429, "too_many_streams_of_key")
    assert (third.status_code, third.json()["code"]) == (503, "too_many_streams")
    assert second.headers["retry-after"] == third.headers["retry-after"] == "5"
    assert (waits.status_code, "preference-applied" in waits.headers) == (200, False)


async def test_nobody_follows_anothers_job(db, caller_and_client):
    _, client = caller_and_client
    intent = await make.taken(db, await make.make_tenant(db))

    answers = [await client.get(f"/v1/jobs/{job_id}/events") for job_id in (intent.job.id, uuid4())]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(404, "not_found")] * 2


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 30, "²"])
async def test_an_id_that_is_none_is_refused(db, caller_and_client, last):
    caller, client = caller_and_client
    intent = await make.taken(db, caller)

    answer = await client.get(f"/v1/jobs/{intent.job.id}/events", params={"last_event_id": last})

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "last-event-id")


async def test_headers_keep_proxies_from_holding_it_back_and_a_comment_keeps_it_open(
    db, caller_and_client, monkeypatch
):
    caller, client = caller_and_client
    intent = await make.taken(db, caller)
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.01)

    async with client.stream("GET", f"/v1/jobs/{intent.job.id}/events") as answer:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        assert "content-length" not in answer.headers
        async with asyncio.timeout(40):
            comments = [line async for line in _first(answer, ": still here", 3)]

    assert len(comments) == 3


async def _first(answer: httpx.Response, start: str, count: int):
    async for line in answer.aiter_lines():
        if line.startswith(start):
            yield line
            count -= 1
        if not count:
            return


async def test_news_is_read_again_once_postgres_is_back(db, caller_and_client, served, monkeypatch):
    caller, client = caller_and_client
    intent = await make.taken(db, caller)

    async with followed(client, f"/v1/jobs/{intent.job.id}/events") as events:
        await some(events, 2)
        look = Hub._look
        failures: list[int] = []

        async def fails(self):
            if len(failures) < 3:
                failures.append(1)
                raise OSError("away")
            return await look(self)

        monkeypatch.setattr(Hub, "_look", fails)
        await make.submit(db, intent)

        assert numbers(await some(events, 1)) == [3]
    assert len(failures) == 3


async def test_a_passed_deadline_is_heard_at_once(database_url, tmp_path):
    async with AsyncExitStack() as stack:
        world = await build(stack, database_url, tmp_path, poll_s=0.02)
        caller, key = await make.make_key(world.db)
        job = await make.accept(world.db, caller, make.an_order(run_after=clock.now() + timedelta(days=1)))
        served = await stack.enter_async_context(service(database_url, **SLOW))
        client = await stack.enter_async_context(served.client(key))
        events = await stack.enter_async_context(followed(client, f"/v1/jobs/{job.id}/events"))
        await some(events, 1)
        stop = asyncio.Event()
        working = asyncio.create_task(work(world.parts, stop, drain_s=1))

        async with world.db.session() as session:
            await session.execute(update(Job).values(deadline_at=func.now()))
        (heard,) = await some(events, 1)
        stop.set()
        await working

    assert heard.data["status"] == "expired"


@pytest.mark.parametrize(
    ("said", "heard"),
    [(["--not-accepted", "--reason", "fal's support says so"], "queued"), (["--accepted", str(uuid4())], "submitted")],
)
async def test_what_an_operator_resolves_is_heard_at_once(db, database_url, tmp_path, said, heard):
    caller, key = await make.make_key(db)
    intent = await make.taken(db, caller)
    await db.run(partial(lifecycle.lost, key=make.key_of(intent), why="ReadTimeout"))
    async with (
        service(database_url, **SLOW) as served,
        served.client(key) as client,
        followed(client, f"/v1/jobs/{intent.job.id}/events") as events,
    ):
        await some(events, 3)
        words = ("jobs", "resolve", str(intent.job.id), *said)
        done = await asyncio.to_thread(call, *words, cwd=tmp_path, DATABASE_URL=database_url)
        told = await some(events, 2)

    assert done.returncode == 0, done.stderr
    assert [event.data["status"] for event in told] == ["submit_unknown", heard]
