"""What is written down to be told: with the change it tells of, or not at all."""

import json

import pytest
from sqlalchemy import text

from app.callbacks import outcomes
from app.jobs import decisions, lifecycle
from app.jobs.lifecycle import JobKey
from app.jobs.states import JobStatus
from app.tenants.caller import Caller
from tests import factories as make
from tests.callbacks import rows
from tests.callbacks.receiver import receiving
from tests.test_plans import heard
from tests.world import run_once

URL = "https://caller.example/callbacks"


async def test_each_ending_is_told_to_the_jobs_own_address_and_nothing_else(db):
    caller = await make.make_tenant(db)

    job = await rows.finished(db, caller, callback_url=URL)

    (delivery,) = await rows.deliveries(db, caller)
    assert (delivery.type, delivery.sequence, delivery.job_id) == ("job.succeeded", job.event_count, job.id)
    assert (delivery.url, delivery.status) == (URL, "pending")


@pytest.mark.parametrize("ending", ["failed", "canceled", "expired"])
async def test_what_brought_no_video_is_told_with_its_reason(db, ending):
    caller = await make.make_tenant(db)
    await rows.make_endpoint(db, caller, URL)
    job = await make.accept(db, caller)
    error = {"code": "why", "title": "No.", "detail": None, "retryable": False}

    key = JobKey(caller.tenant_id, job.id)
    await db.run(lambda session: lifecycle.end(session, key, JobStatus(ending), "test", error=error))

    (delivery,) = await rows.deliveries(db, caller)
    told = json.loads(delivery.body)
    assert (delivery.type, told["type"]) == (f"job.{ending}", f"job.{ending}")
    assert (told["data"]["job"]["error"]["code"], told["data"]["job"]["cost"]["charged"]) == ("why", "0.00")


async def test_an_endpoint_is_told_what_it_asks_for_each_with_the_job_of_that_moment(db):
    caller = await make.make_tenant(db)
    await rows.make_endpoint(db, caller, URL, events=["job.submitted", "job.succeeded", "job.safe"])

    await rows.finished(db, caller)

    told = [json.loads(row.body) for row in await rows.deliveries(db, caller)]
    assert [(one["type"], one["data"]["job"]["status"]) for one in told] == [
        ("job.submitted", "submitted"),
        ("job.succeeded", "succeeded"),
    ]
    assert told[0]["data"]["sequence"] < told[1]["data"]["sequence"]
    assert told[0]["data"]["job"]["output"] is None
    assert told[1]["data"]["job"]["cost"]["charged"] == "2.10"


async def test_files_that_are_safe_are_told_after_the_end(world):
    caller_key = await world.order()
    async with world.db.session() as session:
        tenant_id = await session.scalar(text("SELECT tenant_id FROM jobs"))
    caller = Caller(tenant_id, tenant_id, frozenset())
    await rows.make_endpoint(world.db, caller, URL, events=["job.succeeded", "job.safe"])

    await world.dispatch()
    await world.at_fal(10)
    await world.ended(caller_key["id"])
    await world.rescue()

    told = [json.loads(row.body) for row in await rows.deliveries(world.db, caller)]
    assert [one["type"] for one in told] == ["job.succeeded", "job.safe"]
    assert told[1]["data"]["sequence"] == told[0]["data"]["sequence"] + 1
    assert (told[0]["data"]["job"]["safe_at"], told[1]["data"]["job"]["safe_at"]) != (None, None)
    assert told[1]["data"]["job"] == await world.job(caller_key["id"])


async def test_a_change_that_is_rolled_back_tells_nothing(db):
    caller = await make.make_tenant(db)
    await rows.make_endpoint(db, caller, URL)
    job = await make.accept(db, caller, make.an_order(callback_url=URL))

    async def fails(session):
        assert await lifecycle.end(session, JobKey(caller.tenant_id, job.id), JobStatus.CANCELED, "test")
        assert await session.scalar(text("SELECT count(*) FROM callback_deliveries")) == 2
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await db.run(fails)

    assert await rows.deliveries(db, caller) == []
    assert (await make.look(db, job)).status == "queued"


async def test_news_that_comes_twice_is_told_once(db):
    caller = await make.make_tenant(db)
    await rows.make_endpoint(db, caller, URL)
    intent = await make.taken(db, caller)
    await make.submit(db, intent)

    for _ in range(2):
        await make.report(db, intent, make.success())

    assert len(await rows.deliveries(db, caller)) == 1


async def test_a_wish_to_cancel_is_no_news(db):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)
    await make.submit(db, intent)
    await rows.make_endpoint(db, caller, URL, events=["job.submitted", "job.canceled"])

    await db.run(lambda session: decisions.cancel(session, JobKey(caller.tenant_id, intent.job.id)))

    assert await rows.deliveries(db, caller) == []


async def test_another_tenants_endpoints_hear_nothing(db):
    caller, other = await make.make_tenant(db), await make.make_tenant(db)
    await rows.make_endpoint(db, other, URL)

    await rows.finished(db, caller)

    assert await rows.deliveries(db, caller) == await rows.deliveries(db, other) == []


async def test_a_disabled_endpoint_is_not_written_to(db):
    caller = await make.make_tenant(db)
    endpoint = await rows.make_endpoint(db, caller, URL)
    await db.run(lambda session: outcomes.disable(session, caller.tenant_id, endpoint.id, outcomes.Why.GONE))

    await rows.finished(db, caller)

    assert await rows.deliveries(db, caller) == []


async def test_who_wants_no_callbacks_pays_no_statement_for_them(db):
    caller = await make.make_tenant(db)
    job = await make.accept(db, caller)

    with heard(db) as statements:
        await db.run(lambda s: lifecycle.end(s, JobKey(caller.tenant_id, job.id), JobStatus.CANCELED, "x"))
        plain = [statement for statement, _ in statements if "callback" in statement]

    assert len(plain) <= 1
    assert all(statement.startswith("UPDATE jobs") for statement in plain)


async def test_an_order_with_an_address_is_told_by_the_worker_itself(world):
    secret = (await world.api.get("/v1/callback-secret")).json()["secret"]
    async with receiving() as receiver:
        job = await world.order(callback_url=receiver.url)
        await world.dispatch()
        await world.at_fal(10)
        ended = await world.ended(job["id"])
        assert await run_once(world.sender) == 1

    (got,) = receiver.got
    told = got.verified(secret)
    assert told["type"] == "job.succeeded"
    unsettled = ("safe_at", "measured_seconds")
    assert {k: v for k, v in told["data"]["job"].items() if k not in unsettled} == {
        k: v for k, v in ended.items() if k not in unsettled
    }
