"""Links to a job's events: what EventSource follows in place of a caller who says who they are."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sqlalchemy import text

from app import clock
from app.jobs import event_links
from app.jobs.event_links import EventLink, read, token
from app.media import links
from app.media.links import Link, key_of
from tests import factories as make
from tests.following import followed, service, some, whole

KEY = key_of("a" * 32)
TIMES = st.integers(1_700_000_000, 4_000_000_000).map(lambda s: datetime.fromtimestamp(s, UTC))
IDS = st.uuids(allow_nil=False)
LINKS = st.builds(EventLink, IDS, IDS, IDS, st.none() | IDS, TIMES)


@given(LINKS)
def test_a_link_reads_as_it_was_written(link):
    written = token(KEY, link)

    assert read(KEY, written) == link
    assert len(written) < 200
    assert links.read(KEY, written) is None


@given(LINKS, st.integers(0), st.characters(codec="ascii"))
def test_a_link_changed_in_one_letter_is_none(link, place, letter):
    written = token(KEY, link)
    place %= len(written)
    forged = written[:place] + letter + written[place + 1 :]
    assume(forged != written)

    assert read(KEY, forged) is None


def test_a_link_to_a_file_is_no_link_to_events():
    assert read(KEY, links.token(KEY, Link(uuid4(), uuid4(), 1, clock.now()))) is None


@pytest.fixture
async def served(database_url):
    async with service(database_url) as found:
        yield found


@pytest.fixture
async def stranger(served):
    """One who has nothing but a link."""
    async with httpx.AsyncClient(base_url=served.url, trust_env=False) as client:
        yield client


@pytest.fixture
async def caller_and_client(db, served):
    caller, key = await make.make_key(db)
    async with served.client(key) as client:
        yield caller, client


async def linked(client: httpx.AsyncClient, job_id: Any) -> str:
    answer = await client.get(f"/v1/jobs/{job_id}/events/link")
    assert answer.status_code == 200, answer.text
    url: str = answer.json()["url"]
    return url


async def test_a_link_streams_what_its_caller_would_hear_and_resumes(db, caller_and_client, stranger):
    caller, client = caller_and_client
    intent = await make.taken(db, caller)
    url = await linked(client, intent.job.id)

    async with followed(stranger, url) as events:
        first = await some(events, 2)
        await make.submit(db, intent)
        await make.report(db, intent, make.success())
        rest = [event async for event in events]

    heard = [event.id for event in first + rest if event.id]
    assert heard == [event.id for event in await whole(client, f"/v1/jobs/{intent.job.id}/events")]
    assert [event.id for event in await whole(stranger, url, last="2")] == heard[2:]
    over = await stranger.get(url, params={"last_event_id": heard[-1]})
    assert (len(heard) > 2, over.status_code) == (True, 204)


async def test_a_link_leads_nobody_to_anothers_job(db, caller_and_client):
    _, client = caller_and_client
    intent = await make.taken(db, (await make.make_key(db))[0])

    answer = await client.get(f"/v1/jobs/{intent.job.id}/events/link")

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_token_gets_links_to_its_end_users_jobs_that_end_with_it(db, caller_and_client, served, stranger):
    caller, client = caller_and_client
    mine = await make.taken(db, caller, make.an_order(end_user="ann"))
    others = await make.taken(db, caller, make.an_order(end_user="bob"))
    made = (await client.post("/v1/tokens", json={"end_user": "ann", "actions": ["events"]})).json()
    async with served.client(made["token"]) as page:
        url = await linked(page, mine.job.id)
        hidden = await page.get(f"/v1/jobs/{others.job.id}/events/link")
    async with followed(stranger, url) as events:
        await some(events, 2)

    await client.delete(f"/v1/tokens/{made['id']}")

    after = await stranger.get(url)
    assert hidden.status_code == 404
    assert (after.status_code, after.json()["code"]) == (410, "link_expired")


async def test_a_link_works_no_longer_than_it_says_or_than_its_key(db, caller_and_client, stranger, monkeypatch):
    caller, client = caller_and_client
    intent = await make.taken(db, caller)
    url = await linked(client, intent.job.id)
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(minutes=16))

    late = await stranger.get(url)
    monkeypatch.setattr(clock, "now", lambda: now)
    async with db.session() as session:
        await session.execute(text("UPDATE api_keys SET revoked_at = now()"))
    revoked = await stranger.get(url)

    assert [(one.status_code, one.json()["code"]) for one in (late, revoked)] == [(410, "link_expired")] * 2


async def test_what_is_no_link_is_not_found(stranger):
    forged = token(KEY, EventLink(uuid4(), uuid4(), uuid4(), None, clock.now() + timedelta(hours=1)))

    for last in (forged, "x", event_links.LAYOUT.format):
        assert (await stranger.get(f"/events/{last}")).status_code == 404
