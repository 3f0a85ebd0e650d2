"""GET /v1/events: all of a tenant's jobs; nothing is passed over, however transactions lie across each other."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import text

from app.jobs.lifecycle import JobKey, move
from app.jobs.news import Place
from app.jobs.states import JobStatus
from tests import factories as make
from tests.following import followed, service, some


@pytest.fixture
async def served(database_url):
    async with service(database_url) as found:
        yield found


@pytest.fixture
async def caller_and_client(db, served):
    caller, key = await make.make_key(db)
    async with served.client(key) as client:
        yield caller, client


def told(events):
    return [(event.data["job_id"], event.number) for event in events]


async def test_it_begins_now_and_tells_of_all_jobs_of_the_tenant_alone(db, caller_and_client):
    caller, client = caller_and_client
    await make.accept(db, caller)

    async with followed(client, "/v1/events") as events:
        (start,) = await some(events, 1)
        await make.accept(db, await make.make_tenant(db))
        jobs = [await make.accept(db, caller) for _ in range(3)]
        heard = await some(events, 3)

    assert (start.kind, start.data) == ("start", {})
    assert told(heard) == [(str(job.id), 1) for job in jobs]


async def test_whatever_was_seen_and_what_comes_after_it_are_the_whole_once(db, caller_and_client):
    caller, client = caller_and_client
    for number in range(3):
        intent = await make.taken(db, caller)
        await make.submit(db, intent, f"req-{number}")
        await make.report(db, intent, make.success(f"req-{number}"))

    async with followed(client, "/v1/events", last="0") as events:
        start, *everything = await some(events, 13)
    for seen, event in enumerate(everything[:-1], 1):
        async with followed(client, "/v1/events", last=event.id) as events:
            _, *rest = await some(events, 1 + len(everything) - seen)
        assert told(rest) == told(everything[seen:])

    async with followed(client, "/v1/events", last_event_id=start.id) as events:
        _, *again = await some(events, 13)
    assert told(again) == told(everything)
    assert len(set(told(everything))) == 12


async def test_more_than_a_page_comes_whole(db, caller_and_client):
    caller, client = caller_and_client
    jobs = [await make.accept(db, caller) for _ in range(150)]

    async with followed(client, "/v1/events", last="0") as events:
        _, *heard = await some(events, 151)

    assert told(heard) == [(str(job.id), 1) for job in jobs]


async def test_who_began_first_and_commits_last_is_not_passed_over(db, caller_and_client):
    caller, client = caller_and_client
    slow, quick = [await make.accept(db, caller) for _ in range(2)]

    async with AsyncExitStack() as stack:
        events = await stack.enter_async_context(followed(client, "/v1/events"))
        (start,) = await some(events, 1)
        long_one = await stack.enter_async_context(db.session())
        await move(long_one, JobKey(caller.tenant_id, slow.id), JobStatus.SUBMITTING, "slow", attempts=1)
        async with db.session() as session:
            await move(session, JobKey(caller.tenant_id, quick.id), JobStatus.SUBMITTING, "quick", attempts=1)
        waiting = asyncio.ensure_future(anext(events))
        # Long enough for many looks: what is committed already isn't shown before what will be.
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        assert not done
        await long_one.commit()
        heard = [await waiting, *await some(events, 1)]

    assert told(heard) == [(str(slow.id), 2), (str(quick.id), 2)]
    async with followed(client, "/v1/events", last=start.id) as events:
        _, *again = await some(events, 3)
    assert told(again) == told(heard)


async def test_no_order_of_transactions_leaves_a_gap(db, caller_and_client):
    caller, client = caller_and_client
    jobs = [await make.accept(db, caller) for _ in range(40)]

    async def submitting(place: int) -> None:
        async with db.session() as session:
            await move(session, JobKey(caller.tenant_id, jobs[place].id), JobStatus.SUBMITTING, "x", attempts=1)
            await asyncio.sleep(0.011 * (place * 7 % 10))

    async with followed(client, "/v1/events") as events:
        await some(events, 1)
        both = await asyncio.gather(some(events, 40), *(submitting(place) for place in range(40)))

    assert sorted(told(both[0])) == sorted((str(job.id), 2) for job in jobs)


async def test_it_is_narrowed_as_the_list_is(db, caller_and_client):
    caller, client = caller_and_client
    plain = await make.accept(db, caller)
    theirs = await make.accept(db, caller, make.an_order(end_user="ann", metadata={"a": "1", "b": "2"}))
    edit = await make.accept(db, caller, make.an_order(make.EDIT))
    await make.take(db, 1)

    async def first(**params):
        async with followed(client, "/v1/events", last="0", **params) as events:
            _, found = await some(events, 2)
        return found.data["job_id"], found.data["status"]

    assert await first(end_user="ann") == (str(theirs.id), "queued")
    assert await first(**{"metadata.b": "2"}) == (str(theirs.id), "queued")
    assert await first(model=make.EDIT) == (str(edit.id), "queued")
    assert await first(status=["submitting", "failed"]) == (str(plain.id), "submitting")


async def test_an_id_of_another_database_or_of_none_is_refused(db, caller_and_client):
    _, client = caller_and_client
    async with db.session() as session:
        now = (await session.execute(text("SELECT pg_current_xact_id()::text::bigint"))).scalar_one()
    ahead = Place(now + 1000, (await make.make_tenant(db)).tenant_id, 1).encode()

    for last in ["x", "7", "é", ahead, "_" * 43]:
        answer = await client.get("/v1/events", params={"last_event_id": last})
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "malformed"), last
