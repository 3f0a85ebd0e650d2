"""Canceling a job, against the simulator: what it answers, what fal hears, and who pays."""

import asyncio
from dataclasses import replace

import httpx
import pytest

from app.fal.accounts import Account, Accounts
from app.fal.client import FalClient
from app.fal.platform import Platform
from app.fal.storage import FalStorage
from app.settings import DEFAULT
from app.tenants.keys import Scope
from tests import factories as make


async def test_a_job_that_was_never_sent_is_canceled_at_once_and_free(world):
    job = await world.order()

    answer = await world.cancel(job["id"])
    again = await world.cancel(job["id"])

    told = answer.json()
    assert (answer.status_code, told["status"], told["cost"]["charged"]) == (200, "canceled", "0.00")
    assert told["cancel_requested_at"] is not None
    assert (again.status_code, again.json()) == (200, told)
    assert (await world.dispatch(), await world.books()) == (0, [])


async def test_a_job_in_fals_queue_is_canceled_by_fals_own_word(world):
    job = await world.order("[[sim: queue_s=500]] a mecha")
    await world.dispatch()

    answer = await world.cancel(job["id"])
    again = await world.cancel(job["id"])
    asked = await world.ask()

    done = await world.job(job["id"])
    (request,) = await world.books()
    assert (answer.status_code, answer.json()["status"]) == (202, "submitted")
    assert (again.status_code, again.json()) == (202, answer.json())
    assert (asked, request["cancel_asked"], request["status_code"]) == (1, True, 499)
    assert (done["status"], done["cost"]["charged"], done["cost"]["held"]) == ("canceled", "0.00", "0.00")


@pytest.mark.parametrize(
    ("fate", "status", "charged"),
    [("finish", "succeeded", "2.10"), ("stop", "canceled", "0.00"), ("stop_billed", "canceled", "0.00")],
)
async def test_a_running_job_ends_and_costs_as_fal_says(world, fate, status, charged):
    job = await world.order(f"[[sim: cancel={fate}]] a mecha")
    await world.dispatch()
    await world.at_fal(2)

    answer = await world.cancel(job["id"])
    await world.ask()
    await world.at_fal(60)
    done = await world.reconciled(job["id"])

    assert (answer.status_code, answer.json()["cost"]["charged"]) == (202, None)
    assert (done["status"], done["cost"]["charged"]) == (status, charged)
    assert (await world.books())[0]["cancel_asked"] is True


async def test_what_has_ended_is_not_canceled(world):
    job = await world.order()
    await world.dispatch()
    await world.at_fal(60)
    done = await world.ended(job["id"])

    answer = await world.cancel(job["id"])

    assert (answer.status_code, answer.json()["code"]) == (409, "already_finished")
    assert await world.job(job["id"]) == done


async def test_only_who_may_write_jobs_cancels_and_only_its_own(world):
    job = await world.order()
    _, reader = await make.make_key(world.db, scopes=(Scope.JOBS_READ,))
    _, stranger = await make.make_key(world.db)

    codes = []
    for key in (reader, stranger):
        headers = {"Authorization": f"Bearer {key}"}
        codes.append((await world.api.post(f"/v1/jobs/{job['id']}/cancel", headers=headers)).status_code)

    assert codes == [403, 404]
    assert (await world.job(job["id"]))["status"] == "queued"


async def test_a_cancel_during_the_submit_is_passed_on_after_it(world):
    job = await world.order("[[sim: queue_s=500, slow_answer_s=0.05]] a mecha")
    (submit,) = await world.dispatcher.take(1)
    answer = await world.cancel(job["id"])
    await submit

    await world.ask()

    done = await world.job(job["id"])
    assert (answer.status_code, answer.json()["status"]) == (202, "submitting")
    assert (done["status"], done["cost"]["charged"]) == ("canceled", "0.00")


async def test_a_refused_submit_that_shall_be_canceled_is_not_sent_again(world):
    job = await world.order("[[sim: refuse=429, times=1]] a mecha")
    (submit,) = await world.dispatcher.take(1)
    await world.cancel(job["id"])
    await submit
    await make.let_time_pass(world.db)

    assert (await world.dispatch(), (await world.job(job["id"]))["status"]) == (0, "canceled")
    assert await world.books() == []


async def test_a_cancel_of_a_lost_submit_is_remembered_until_the_request_is_known(world):
    job = await world.order("[[sim: lost_answer, webhook=never, cancel=stop, run_s=500]] a mecha")
    await world.dispatch()

    answer = await world.cancel(job["id"])
    await world.ask()
    unknown = await world.job(job["id"])
    await world.at_fal(2)
    done = await world.reconciled(job["id"])

    assert (answer.status_code, unknown["status"], unknown["cost"]["held"]) == (202, "submit_unknown", "2.10")
    assert (done["status"], done["cost"]["charged"]) == ("canceled", "0.00")


async def test_a_cancel_that_fal_did_not_answer_is_passed_on_again(world):
    job = await world.order("[[sim: queue_s=500]] a mecha")
    await world.dispatch()
    await world.cancel(job["id"])
    away = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(502)))
    fal = FalClient(away, queue_url="http://fal/queue", key="test")
    platform = Platform(away, api_url="http://fal/v1", key="test")
    uploads = FalStorage(away, away, rest_url="http://fal/rest", key="test")
    cut_off = replace(world.reconciler, accounts=Accounts([Account(DEFAULT, fal, platform, uploads)]))

    for piece in await cut_off.take(1):
        await piece
    waiting = await world.job(job["id"])
    done = await world.reconciled(job["id"])

    assert (waiting["status"], waiting["cost"]["held"]) == ("submitted", "2.10")
    assert (done["status"], (await world.books())[0]["cancel_asked"]) == ("canceled", True)


@pytest.mark.parametrize("fate", ["finish", "stop", "stop_billed"])
@pytest.mark.parametrize("fal_s", [0, 2, 3.9, 60])
async def test_cancel_completion_and_webhook_at_once_leave_one_outcome_which_is_fals(world, fate, fal_s):
    job = await world.order(f"[[sim: cancel={fate}]] a mecha")
    await world.dispatch()
    await world.at_fal(fal_s)

    await asyncio.gather(
        *(world.cancel(job["id"]) for _ in range(2)), world.at_fal(2), *(world.ask() for _ in range(3))
    )
    await world.at_fal(60)
    done = await world.reconciled(job["id"])

    (request,) = await world.books()
    told = {200: ("succeeded", "2.10"), 499: ("canceled", "0.00")}[request["status_code"]]
    assert (done["status"], done["cost"]["charged"]) == told
    entries = (await world.api.get("/v1/ledger")).json()["data"]
    assert len(entries) == 2
