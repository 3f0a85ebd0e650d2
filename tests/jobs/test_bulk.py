"""Many jobs with one call: each is accepted, canceled or retried on its own."""

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from app.db import Database
from app.jobs import accepting
from tests import factories as make

ORDER: dict[str, Any] = {"model": make.O3, "input": {"prompt": "a mecha lands", "duration": "5"}}
WRONG: dict[str, Any] = {"model": make.O3, "input": {"prompt": "a mecha lands", "duration": "99"}}


@pytest.fixture
async def caller(api, db):
    caller, key = await make.make_key(db, credit_limit="10")
    api.headers["Authorization"] = f"Bearer {key}"
    return caller


async def batch(api, *orders, **headers):
    answer = await api.post("/v1/jobs/batch", json={"orders": orders}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def ids(api, count, **fields):
    answers = await batch(api, *[{**ORDER, **fields}] * count)
    return [answer["job"]["id"] for answer in answers]


async def test_one_bad_order_is_refused_alone_and_the_answers_are_in_order(api, db, caller):
    answers = await batch(api, ORDER, WRONG, {**ORDER, "model": "no/such"}, ORDER)

    assert [answer["status"] for answer in answers] == [202, 422, 404, 202]
    assert answers[1]["problem"]["errors"][0]["pointer"] == "/input/duration"
    assert (await make.balances(db, caller))[1] == Decimal("4.20")


async def test_the_balance_covers_the_first_ones(api, db, caller):
    answers = await batch(api, *[ORDER] * 6)

    assert [answer["status"] for answer in answers] == [202] * 4 + [402] * 2
    await make.assert_adds_up(db, caller)


async def test_a_repeated_batch_brings_the_same_jobs(api, db, caller):
    orders = [ORDER, {**ORDER, "idempotency_key": "mine"}]
    first = await batch(api, *orders, **{"Idempotency-Key": "episode"})

    again = await batch(api, *orders, **{"Idempotency-Key": "episode"})
    alone = await api.post("/v1/jobs", json=ORDER, headers={"Idempotency-Key": "mine"})

    assert [answer["status"] for answer in again] == [200, 200]
    assert [answer["job"]["id"] for answer in again] == [answer["job"]["id"] for answer in first]
    assert alone.json()["id"] == first[1]["job"]["id"]


async def test_a_batch_that_cannot_be_read_is_refused_whole(api, db, caller):
    answer = await api.post("/v1/jobs/batch", json={"orders": [ORDER, {"model": make.O3}, {**ORDER, "x": 1}]})

    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/orders/1/input", "/orders/2/x"]
    assert await make.entries_of(db, caller) == []


async def test_what_was_accepted_before_the_database_went_away_is_told(api, caller, monkeypatch):
    accept, calls = accepting.accept, 0

    async def away(ask, members):
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OperationalError("SELECT", {}, Exception())
        return await accept(ask, members)

    monkeypatch.setattr(accepting, "accept", away)

    answers = await batch(api, ORDER, ORDER, ORDER)

    assert [answer["status"] for answer in answers] == [202, 503, 503]
    assert calls == 2


async def test_cancelling_many_counts_first(api, db, caller):
    await ids(api, 2, end_user="a")
    await ids(api, 1, end_user="b")

    counted = (await api.post("/v1/jobs/cancel", json={"end_user": "a"})).json()
    held = (await make.balances(db, caller))[1]
    done = (await api.post("/v1/jobs/cancel", json={"end_user": "a", "dry_run": False})).json()

    assert (counted["matched"], counted["amount"], counted["dry_run"], held) == (2, "4.20", True, Decimal("6.30"))
    assert [answer["result"] for answer in done["data"]] == ["canceled", "canceled"]
    assert (await make.balances(db, caller))[1] == Decimal("2.10")


async def test_what_fal_has_is_asked_to_stop_and_not_found_again(api, db, caller):
    intent = await make.taken(db, caller)
    await make.submit(db, intent)

    first = (await api.post("/v1/jobs/cancel", json={"dry_run": False})).json()
    second = (await api.post("/v1/jobs/cancel", json={"dry_run": False})).json()

    assert [answer["result"] for answer in first["data"]] == ["cancel_requested"]
    assert second["matched"] == 0


async def test_a_limit_tells_that_there_are_more(api, caller):
    oldest = (await ids(api, 3))[0]

    answer = (await api.post("/v1/jobs/cancel", json={"limit": 1, "dry_run": False})).json()

    assert (answer["matched"], answer["more"], answer["data"][0]["id"]) == (1, True, oldest)


async def test_retrying_many_finds_each_job_once(api, db, caller):
    made = await ids(api, 3)
    await api.post("/v1/jobs/cancel", json={"dry_run": False})

    counted = (await api.post("/v1/jobs/retry", json={})).json()
    done = (await api.post("/v1/jobs/retry", json={"dry_run": False, "status": ["canceled"]})).json()
    again = (await api.post("/v1/jobs/retry", json={"dry_run": False, "status": ["canceled"]})).json()

    assert (counted["matched"], counted["amount"]) == (3, "6.30")
    assert [answer["id"] for answer in done["data"]] == made
    assert all(answer["result"] == "retried" for answer in done["data"])
    assert again["matched"] == 0


async def test_a_retry_that_is_refused_says_why(api, db, caller):
    await ids(api, 4)
    await api.post("/v1/jobs/cancel", json={"dry_run": False})
    await ids(api, 3)

    answers = (await api.post("/v1/jobs/retry", json={"dry_run": False})).json()["data"]

    assert [answer["problem"] and answer["problem"]["code"] for answer in answers] == [
        None,
        *["insufficient_funds"] * 3,
    ]


async def test_only_errors_of_one_kind_are_retried(api, db, caller):
    intent = await make.taken(db, caller)
    await make.report(db, intent, make.failure())
    await ids(api, 1)
    await api.post("/v1/jobs/cancel", json={"dry_run": False})

    answer = (await api.post("/v1/jobs/retry", json={"error_code": "content_policy_violation"})).json()

    assert [found["id"] for found in answer["data"]] == [str(intent.job.id)]


@pytest.mark.parametrize(("door", "status"), [("cancel", "failed"), ("retry", "succeeded")])
async def test_a_status_that_cannot_be_meant_is_told(api, caller, door, status):
    answer = await api.post(f"/v1/jobs/{door}", json={"status": [status]})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_jobs_of_others_are_never_meant(api, db, caller):
    await make.accept(db, await make.make_tenant(db))

    assert (await api.post("/v1/jobs/cancel", json={"dry_run": False})).json()["matched"] == 0


async def test_what_was_done_before_the_database_went_away_is_announced(api, db, caller, monkeypatch):
    await ids(api, 3)
    announced: list[int] = []
    done: list[Any] = []
    run = Database.run
    monkeypatch.setattr(api._transport.app.state.announcer, "announce", lambda: announced.append(len(done)))

    async def twice(self, work):
        if len(done) == 2:
            raise OperationalError("UPDATE", {}, Exception("gone"))
        answer = await run(self, work)
        done.append(answer)
        return answer

    monkeypatch.setattr(Database, "run", twice)
    answer = await api.post("/v1/jobs/cancel", json={"dry_run": False})

    assert (answer.status_code, announced) == (503, [1, 2])
