"""`Prefer: wait=N`: the answer waits for the job's end, and holds nothing meanwhile."""

import asyncio
import time
from uuid import UUID

import pytest

from app.jobs.prefer import wait_s
from tests import factories as make
from tests.following import service

ORDER = {"model": make.O3, "input": {"prompt": "a mecha", "duration": "5"}}


@pytest.fixture
async def served(database_url):
    async with service(database_url) as found:
        yield found


@pytest.fixture
async def caller_and_client(db, served):
    caller, key = await make.make_key(db)
    async with served.client(key) as client:
        yield caller, client


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (None, 0),
        (["wait=5"], 5),
        (["respond-async, wait=10"], 10),
        (["respond-async", "WAIT = 3; x=1"], 3),
        (['wait="7"'], 7),
        (["wait=3600"], 60),
        (["wait=-1"], 0),
        (["wait=1.5"], 0),
        (["await=5"], 0),
        (["wait"], 0),
    ],
)
def test_the_wish_is_read_as_the_standard_writes_it(prefer, seconds):
    assert wait_s(prefer) == seconds


async def ends_while(db, served, request):
    """The answer to *request*, sent first, while the one queued job ends."""
    answering = asyncio.ensure_future(request)
    async with asyncio.timeout(60):
        while not len(served.app.state.hub):
            await asyncio.sleep(0.005)
    await served.holds_no_connection()
    (intent,) = await make.take(db)
    await make.submit(db, intent)
    await make.report(db, intent, make.success())
    return await answering


async def test_a_new_job_that_ends_meanwhile_is_answered_with_201(db, caller_and_client, served):
    _, client = caller_and_client
    headers = {"Prefer": "wait=30", "Idempotency-Key": "one"}

    answer = await ends_while(db, served, client.post("/v1/jobs", json=ORDER, headers=headers, timeout=40))
    again = await client.post("/v1/jobs", json=ORDER, headers=headers)

    assert (answer.status_code, answer.json()["status"], answer.json()["cost"]["charged"]) == (201, "succeeded", "2.10")
    assert answer.headers["preference-applied"] == "wait=30"
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    assert (again.status_code, again.json()["id"]) == (200, answer.json()["id"])
    assert len(served.app.state.hub) == 0


async def test_a_job_that_goes_on_is_answered_as_ever(caller_and_client):
    _, client = caller_and_client
    since = time.monotonic()

    ordered = await client.post("/v1/jobs", json=ORDER, headers={"Prefer": "wait=1"})
    shown = await client.get(f"/v1/jobs/{ordered.json()['id']}", headers={"Prefer": "wait=1"})

    assert 2 <= time.monotonic() - since < 60
    assert (ordered.status_code, shown.status_code) == (202, 200)
    assert ordered.headers["preference-applied"] == shown.headers["preference-applied"] == "wait=1"
    assert shown.json()["status"] == "queued"


async def test_a_look_waits_for_the_end_too(db, caller_and_client, served):
    caller, client = caller_and_client
    job = await make.accept(db, caller)

    answer = await ends_while(db, served, client.get(f"/v1/jobs/{job.id}", headers={"Prefer": "wait=30"}, timeout=40))

    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")


async def test_without_the_wish_nothing_is_said_of_it(caller_and_client):
    _, client = caller_and_client

    answer = await client.post("/v1/jobs", json=ORDER)

    assert (answer.status_code, "preference-applied" in answer.headers) == (202, False)


async def test_who_hangs_up_has_ordered_and_is_waited_for_no_longer(db, caller_and_client, served):
    _, client = caller_and_client
    hub = served.app.state.hub
    waiting = asyncio.create_task(client.post("/v1/jobs", json=ORDER, headers={"Prefer": "wait=60"}))
    async with asyncio.timeout(60):
        while not len(hub):
            await asyncio.sleep(0.005)

    waiting.cancel()
    # Sooner than the wait would be over by itself.
    async with asyncio.timeout(40):
        while len(hub):
            await asyncio.sleep(0.01)

    (job,) = (await client.get("/v1/jobs")).json()["data"]
    assert (await make.look(db, await make.key_of_id(db, str(UUID(job["id"]))))).status == "queued"


async def test_a_service_that_stops_answers_at_once(database_url, db):
    _, key = await make.make_key(db)
    async with service(database_url, stop_s=60) as served, served.client(key) as client:
        answering = asyncio.ensure_future(client.post("/v1/jobs", json=ORDER, headers={"Prefer": "wait=60"}))
        async with asyncio.timeout(60):
            while not len(served.app.state.hub):
                await asyncio.sleep(0.005)
        served.server.should_exit = True
        # Sooner than the wait would be over by itself, or the service lose its patience.
        answer = await asyncio.wait_for(answering, 40)

    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
