"""POST /v1/jobs/{id}/retry: a new job for one that ended without a video, once."""

import asyncio
from decimal import Decimal

import pytest

from app.jobs.lifecycle import JobKey
from tests import factories as make


@pytest.fixture
async def caller(api, db):
    caller, key = await make.make_key(db)
    api.headers["Authorization"] = f"Bearer {key}"
    return caller


async def failed(db, caller, **order):
    intent = await make.taken(db, caller, make.an_order(**order))
    await make.submit(db, intent, f"req-{intent.job.id}")
    await make.report(db, intent, make.failure(f"req-{intent.job.id}"))
    return intent.job


async def test_a_retry_is_a_new_job_that_names_its_origin(api, db, caller):
    job = await failed(db, caller, metadata={"shot": "7"}, end_user="user-1", deadline_s=600.0)

    answer = await api.post(f"/v1/jobs/{job.id}/retry")

    retry = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{retry['id']}"
    assert (retry["retry_of"], retry["status"]) == (str(job.id), "queued")
    assert (retry["input"], retry["metadata"], retry["end_user"]) == (job.input, {"shot": "7"}, "user-1")
    assert retry["deadline_at"] is not None
    assert await make.balances(db, caller) == (Decimal("-2.10"), Decimal("2.10"), Decimal(0))


async def test_a_job_is_retried_once_however_often_that_is_asked_for(api, db, caller):
    job = await failed(db, caller)

    answers = await asyncio.gather(*(api.post(f"/v1/jobs/{job.id}/retry") for _ in range(20)))

    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert (await make.balances(db, caller))[1] == Decimal("2.10")


async def test_a_retry_can_be_retried(api, db, caller):
    job = await failed(db, caller)
    retry = (await api.post(f"/v1/jobs/{job.id}/retry")).json()
    await api.post(f"/v1/jobs/{retry['id']}/cancel")

    third = (await api.post(f"/v1/jobs/{retry['id']}/retry")).json()

    assert third["retry_of"] == retry["id"]


@pytest.mark.parametrize("ending", ["queued", "succeeded"])
async def test_only_what_ended_without_a_video_is_retried(api, db, caller, ending):
    intent = await make.taken(db, caller)
    if ending == "succeeded":
        await make.report(db, intent, make.success())

    answer = await api.post(f"/v1/jobs/{intent.job.id}/retry")

    assert (answer.status_code, answer.json()["code"]) == (
        409,
        "already_succeeded" if ending == "succeeded" else "not_finished",
    )


async def test_a_retry_may_be_too_expensive(api, db, caller):
    job = await failed(db, caller)

    answer = await api.post(f"/v1/jobs/{job.id}/retry", params={"max_cost": "2.09"})

    assert (answer.status_code, answer.json()["code"]) == (402, "max_cost_exceeded")


async def test_another_tenants_job_is_not_there(api, db, caller):
    job = await failed(db, await make.make_tenant(db))

    answer = await api.post(f"/v1/jobs/{job.id}/retry")

    assert answer.status_code == 404
    assert (await make.look(db, JobKey(job.tenant_id, job.id))).status == "failed"
