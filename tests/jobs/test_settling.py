"""Verdicts settled in sets leave exactly what they leave one by one."""

from dataclasses import replace
from datetime import UTC
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from app import clock
from app.callbacks import outbox
from app.db import Database
from app.fal.messages import Outcome, Report
from app.jobs import settling
from app.jobs.callbacks import JobNews
from app.jobs.lifecycle import Applied
from app.jobs.schemas import JobView
from app.jobs.settling import Heard
from app.jobs.tables import WebhookDelivery
from app.jobs.tokens import token_digest
from app.verify.verifier import verify
from tests import factories as make
from tests.callbacks import rows

# What differs from one run to the next: names and times of our own making.
OWN = {"id", "job_id", "entry_id", "attempt_id", "endpoint_id", "tenant_id", "api_key_id", "token_digest", "digest"}
ROWS = {
    "jobs": "id = :job",
    "attempts": "job_id = :job",
    "job_events": "job_id = :job ORDER BY number",
    "ledger_entries": "job_id = :job ORDER BY kind",
    "outputs": "job_id = :job ORDER BY number",
    "file_uses": "job_id = :job",
}


def heard(intent: Any, news: Report) -> Heard:
    digest = token_digest(intent.token)
    return Heard(make.key_of(intent), digest, news, {"user-agent": "fal"}, "{}", 2, digest)


async def left(db: Database, job: Any) -> dict[str, list[dict[str, Any]]]:
    """All that the database has of *job*, but for what no two jobs share."""
    found = {}
    async with db.session() as session:
        for table, which in ROWS.items():
            got = await session.execute(text(f"SELECT to_jsonb({table}) FROM {table} WHERE {which}"), {"job": job.id})
            found[table] = [
                {name: value for name, value in row.items() if name not in OWN and not name.endswith("_at")}
                | {name: value is not None for name, value in row.items() if name.endswith("_at")}
                for (row,) in got
            ]
    for row in (row for table in found.values() for row in table):
        row.pop("transaction_id", None)
    return found


async def settle(db: Database, *members: Heard, listening: set[Any] | None = None) -> list[Any]:
    """The ids of the jobs."""
    ended = await settling.write(db, members, set() if listening is None else listening)
    return [job and job.id for job in ended]


@pytest.mark.parametrize("submitted", [True, False], ids=["submitted", "submitting"])
@pytest.mark.parametrize("outcome", list(Outcome))
async def test_a_set_leaves_what_the_lifecycle_leaves(db, outcome, submitted):
    def news(request_id: str) -> Report:
        return make.success(request_id) if outcome is Outcome.SUCCEEDED else make.failure(request_id, outcome)

    caller, other = await make.make_tenant(db), await make.make_tenant(db)
    alone, together = await make.taken(db, caller), await make.taken(db, other)
    if submitted:
        await make.submit(db, alone, "req-1")
        await make.submit(db, together, "req-2")

    assert await make.report(db, alone, news("req-1")) is Applied.SETTLED
    assert await settle(db, heard(together, news("req-2"))) == [together.job.id]

    one, two = await left(db, alone.job), await left(db, together.job)
    for rows_ in two.values():
        for row in rows_:
            row.update({name: "req-1" for name, value in row.items() if value == "req-2"})
            row.update(
                {
                    name: value.replace("req-2", "req-1")
                    for name, value in row.items()
                    if name.endswith("_url") and value
                }
            )
    assert one == two
    assert await make.balances(db, caller) == await make.balances(db, other)
    assert (await verify(db)).ok


async def test_who_listens_is_told(db):
    caller = await make.make_tenant(db)
    await rows.make_endpoint(db, caller, "https://caller.example/", events=["job.succeeded"])
    intent = await make.taken(db, caller)

    await settle(db, heard(intent, make.success()))

    (delivery,) = await rows.deliveries(db, caller)
    assert (delivery.type, delivery.job_id) == ("job.succeeded", intent.job.id)
    assert '"status":"succeeded"' in delivery.body
    assert '"charged":"2.10"' in delivery.body


async def test_a_set_of_endings_is_told_each_to_its_own_listeners(db):
    ours, theirs = await make.make_tenant(db), await make.make_tenant(db)
    deaf = await rows.make_endpoint(db, ours, "https://ours.example/off", disabled_at=clock.now(), disabled_why="x")
    first = await rows.make_endpoint(db, ours, "https://ours.example/1")
    second = await rows.make_endpoint(db, ours, "https://ours.example/2", events=["job.failed"])
    with_url = await make.taken(db, ours, make.an_order(callback_url="https://ours.example/own"))
    without, unheard = await make.taken(db, ours), await make.taken(db, theirs)

    members = [
        heard(with_url, make.success("req-1")),
        heard(without, make.failure("req-2")),
        heard(unheard, make.success("req-3")),
    ]
    assert await settle(db, *members) == [with_url.job.id, without.job.id, unheard.job.id]

    told = {(row.job_id, row.endpoint_id, row.url, row.type) for row in await rows.deliveries(db, ours)}
    (own,) = {endpoint_id for _, endpoint_id, url, _ in told if url is not None}
    assert own not in {deaf.id, first.id, second.id}
    assert told == {
        (with_url.job.id, first.id, None, "job.succeeded"),
        (with_url.job.id, own, "https://ours.example/own", "job.succeeded"),
        (without.job.id, first.id, None, "job.failed"),
        (without.job.id, second.id, None, "job.failed"),
    }
    assert await rows.deliveries(db, theirs) == []
    assert (await verify(db)).ok


async def test_what_a_set_tells_is_byte_for_byte_what_one_alone_is_told(db):
    caller = await make.make_tenant(db)
    await rows.make_endpoint(db, caller, "https://caller.example/")
    order: dict[str, Any] = {"metadata": {"shot": "é"}, "end_user": "u", "deadline_s": 3600.5, "priority": 0}
    together = await make.taken(db, caller, make.an_order(**order))
    await make.submit(db, together)

    await settle(db, heard(together, make.success()))

    (delivery,) = await rows.deliveries(db, caller)
    job: Any = await make.look(db, together.job)
    at = job.finished_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    data = JobNews(job=JobView.of(job), sequence=job.event_count).model_dump_json()
    assert delivery.body == f'{{"type":"job.succeeded","timestamp":"{at}","data":{data}}}'


async def test_where_nobody_is_known_to_listen_who_does_is_told_all_the_same(db):
    caller, other = await make.make_tenant(db), await make.make_tenant(db)
    await rows.make_endpoint(db, caller, "https://caller.example/")
    told, unheard = await make.taken(db, caller), await make.taken(db, other)
    listening: set[Any] = set()

    members = heard(told, make.success()), heard(unheard, make.success("req-2"))

    assert await settle(db, *members, listening=listening) == [told.job.id, unheard.job.id]
    assert [row.job_id for row in await rows.deliveries(db, caller)] == [told.job.id]
    assert listening == {caller.tenant_id}
    assert (await verify(db)).ok


async def test_those_who_are_told_fail_without_those_who_are_settled_already(db, monkeypatch):
    caller, other = await make.make_tenant(db), await make.make_tenant(db)
    await rows.make_endpoint(db, caller, "https://caller.example/")
    told, unheard = await make.taken(db, caller), await make.taken(db, other)
    monkeypatch.setattr(settling, "SETTLE_TO_TELL", "SELECT 1 / 0")

    members = heard(told, make.success()), heard(unheard, make.success("req-2"))

    assert await settle(db, *members) == [None, unheard.job.id]
    assert (await make.look(db, told.job)).status == "submitting"


async def test_those_of_whom_nobody_listens_any_more_are_settled_like_others(db):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)

    assert await settle(db, heard(intent, make.success()), listening={caller.tenant_id}) == [intent.job.id]
    assert await rows.deliveries(db, caller) == []
    assert (await verify(db)).ok


async def test_a_statement_alone_settles_those_of_whom_nobody_listens(db):
    class OneRound(Database):
        async def run_few(self, work: Any) -> Any:
            raise AssertionError("a second round trip")

    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)
    quick = OneRound.__new__(OneRound)
    quick.__dict__.update(db.__dict__)

    assert await settle(quick, heard(intent, make.success())) == [intent.job.id]


async def test_a_verdict_that_comes_twice_in_a_set_settles_once(db):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)
    twice = heard(intent, make.success())

    assert await settle(db, twice, twice) == [intent.job.id, None]
    assert await settle(db, twice) == [None]
    assert [kind for kind, _ in await make.entries_of(db, caller)] == ["hold", "charge"]
    async with db.session() as session:
        assert [row.deliveries for row in await session.scalars(select(WebhookDelivery))] == [1]


async def test_what_needs_a_closer_look_is_left_out_and_its_neighbours_are_not(db):
    caller = await make.make_tenant(db)
    plain, measured = await make.taken(db, caller), await make.taken(db, caller, make.an_order(make.EDIT))
    elsewhere = await make.taken(db, caller)
    await make.submit(db, elsewhere, "req-3")

    found = await settle(
        db,
        heard(measured, make.success("req-2")),
        heard(plain, make.success("req-1")),
        heard(elsewhere, make.success("req-9")),
    )

    assert found == [None, plain.job.id, None]
    assert [(await make.look(db, one.job)).status for one in (measured, elsewhere)] == ["submitting", "submitted"]


@pytest.mark.parametrize(
    "statement",
    [(settling, "SETTLE"), (settling, "SETTLE_TO_TELL"), (outbox, "ADD")],
    ids=["settle", "settle to tell", "tell"],
)
async def test_a_set_that_fails_leaves_every_job_as_it_was(db, statement, monkeypatch):
    caller = await make.make_tenant(db)
    await rows.make_endpoint(db, caller, "https://caller.example/")
    intent = await make.taken(db, caller)
    monkeypatch.setattr(*statement, "SELECT 1 / 0")

    with pytest.raises(DBAPIError):
        await settle(db, heard(intent, make.success()))

    assert (await make.look(db, intent.job)).status == "submitting"
    assert [kind for kind, _ in await make.entries_of(db, caller)] == ["hold"]


async def test_of_two_verdicts_with_one_token_the_one_that_is_left_out_is_not_said_to_be_settled(db):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)
    without_a_video = replace(make.success(), output={})

    told = await settle(db, heard(intent, without_a_video), heard(intent, make.failure()))

    assert told == [None, intent.job.id]
    assert (await make.look(db, intent.job)).status == "failed"
