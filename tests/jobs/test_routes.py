"""POST /v1/jobs, GET /v1/jobs, GET /v1/jobs/{id}: what callers send and see."""

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import httpx
import pytest
import structlog
from sqlalchemy import text

from app import clock, logs
from app.catalog.catalog import Catalog
from app.tenants.keys import Scope
from tests import factories as make

ORDER: dict[str, Any] = {
    "model": make.O3,
    "input": {
        "prompt": 'A mecha lands on the ground to save the city, and says "I\'m here", in anime style',
        "duration": "5",
        "aspect_ratio": "16:9",
    },
}


@pytest.fixture
async def caller(api, db):
    caller, key = await make.make_key(db)
    api.headers["Authorization"] = f"Bearer {key}"
    return caller


async def order(api: httpx.AsyncClient, body: object = None, **headers: str) -> httpx.Response:
    return await api.post("/v1/jobs", json=ORDER if body is None else body, headers=headers)


async def test_an_order_is_accepted_with_its_price_held(api, db, caller):
    answer = await order(api)

    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["status"], job["waiting"]["for"]) == ("queued", "dispatch")
    assert job["cost"] == {
        "currency": "USD",
        "seconds": "5",
        "price_per_second": "0.42",
        "quoted": "2.10",
        "held": "2.10",
        "charged": None,
        "measured_seconds": None,
    }
    assert await make.balances(db, caller) == (Decimal("-2.10"), Decimal("2.10"), Decimal(0))


async def test_what_was_accepted_is_in_the_database_when_the_answer_leaves(api, db, caller):
    job_id = (await order(api)).json()["id"]

    async with db.session() as session:
        found = await session.execute(text("SELECT status FROM jobs WHERE id = CAST(:id AS uuid)"), {"id": job_id})
        assert found.scalar_one() == "queued"


async def test_one_key_from_fifty_connections_at_once_makes_one_job_and_one_hold(api, db, caller):
    answers = await asyncio.gather(*(order(api, **{"Idempotency-Key": "order-1"}) for _ in range(50)))

    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum(answer.headers.get("idempotent-replayed") == "true" for answer in answers) == 49
    assert await make.entries_of(db, caller) == [("hold", Decimal("2.10"))]


async def test_the_same_order_spelled_otherwise_is_the_same_order(api, caller):
    first = await order(api, **{"Idempotency-Key": "k"})
    spelled = {"input": dict(reversed(ORDER["input"].items())), "model": make.O3, "priority": "normal", "metadata": {}}

    again = await order(api, spelled, **{"Idempotency-Key": "k"})

    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])


async def test_a_repeat_brings_its_job_whatever_changed_since(api, db, caller):
    first = await order(api, **{"Idempotency-Key": "k"})
    api._transport.app.state.catalog = Catalog([])

    again = await order(api, **{"Idempotency-Key": "k"})
    other = await order(api)

    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    assert other.status_code == 404


async def test_the_same_key_with_another_order_is_a_conflict(api, db, caller):
    await order(api, **{"Idempotency-Key": "k"})

    answer = await order(api, {**ORDER, "end_user": "someone else"}, **{"Idempotency-Key": "k"})

    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_conflict")
    assert len(await make.entries_of(db, caller)) == 1


async def test_every_fault_of_the_input_is_named_at_once(api, db, caller):
    wrong = {"duration": 5, "aspect_ratio": "21:9", "promt": "x", "generate_audio": "yes"}

    answer = await order(api, {"model": make.O3, "input": wrong})

    told = answer.json()
    assert (answer.status_code, told["code"]) == (422, "invalid_order")
    assert answer.headers["content-type"] == "application/problem+json"
    pointers = {fault["pointer"] for fault in told["errors"]}
    assert {"/input/duration", "/input/aspect_ratio", "/input/promt", "/input/generate_audio"} <= pointers
    assert await make.entries_of(db, caller) == []


@pytest.mark.parametrize(
    ("change", "pointers"),
    [
        ({"priority": "urgent", "deadline_s": -1, "metadata": {"a b": "x"}}, {"/priority", "/deadline_s"}),
        ({"input": None}, {"/input"}),
        ({"surprise": 1}, {"/surprise"}),
        ({"max_cost": "1e3"}, {"/max_cost"}),
        ({"max_cost": 2.1}, {"/max_cost"}),
        ({"run_after": "2026-01-01T00:00:00"}, {"/run_after"}),
        ({"run_after": "9999-12-31T23:59:59-14:00"}, {"/run_after"}),
        ({"run_after": "0001-01-01T00:00:00+14:00"}, {"/run_after"}),
        ({"end_user": ""}, {"/end_user"}),
        ({"end_user": "a\x00b"}, {"/end_user"}),
        ({"metadata": {str(n): "x" for n in range(21)}}, {"/metadata"}),
    ],
)
async def test_every_fault_of_the_order_is_named(api, caller, change, pointers):
    answer = await order(api, {**ORDER, **change})

    told = answer.json()
    assert (answer.status_code, told["code"]) == (422, "invalid_request")
    assert pointers <= {fault["pointer"] for fault in told["errors"]}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b"[" * 50_000, b'{"model": NaN}', b'{"model": "\\ud800", "input": {}}'],
)
async def test_what_is_no_order_is_told_as_a_problem(api, caller, body):
    answer = await api.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code in {404, 422}
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("prompt", ["a\x00b", "\ud800"])
async def test_text_that_cannot_be_kept_is_refused(api, caller, prompt):
    body = json.dumps({"model": make.O3, "input": {"prompt": prompt}})

    answer = await api.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/input/prompt"


async def test_an_unknown_model_is_told_with_what_was_probably_meant(api, caller):
    answer = await order(api, {**ORDER, "model": "fal-ai/kling-video/o3/4k/text-to-vidio"})

    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")
    assert make.O3 in answer.json()["detail"]


async def test_an_order_above_its_own_limit_is_refused(api, db, caller):
    refused = await order(api, {**ORDER, "max_cost": "2.09"})
    taken = await order(api, {**ORDER, "max_cost": "2.10"})

    assert (refused.status_code, refused.json()["code"]) == (402, "max_cost_exceeded")
    assert taken.status_code == 202
    assert len(await make.entries_of(db, caller)) == 1


async def test_an_order_above_the_credit_limit_is_refused(api, db):
    _, key = await make.make_key(db, credit_limit="0")

    answer = await order(api, Authorization=f"Bearer {key}")

    assert (answer.status_code, answer.json()["code"]) == (402, "insufficient_funds")


async def test_shots_are_priced_by_their_sum(api, caller):
    shots = [
        {"prompt": "one", "duration": "3"},
        {"prompt": "two", "duration": "4"},
        {"prompt": "three", "duration": "5"},
    ]

    answer = await order(api, {"model": make.O3, "input": {"multi_prompt": shots}})

    assert (answer.json()["cost"]["seconds"], answer.json()["cost"]["quoted"]) == ("12", "5.04")


async def test_a_body_above_the_limit_is_refused(api, caller):
    answer = await order(api, {**ORDER, "input": {**ORDER["input"], "prompt": "x" * 1_100_000}})

    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "Key", "key"])
async def test_a_key_works_as_bearer_and_as_fals_own_scheme(api, db, scheme):
    _, key = await make.make_key(db)

    assert (await api.get("/v1/jobs", headers={"Authorization": f"{scheme} {key}"})).status_code == 200


@pytest.mark.parametrize(
    "header", [{}, {"Authorization": "Bearer cs_wrong"}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer"}]
)
async def test_without_a_good_key_nothing_is_answered(api, header):
    for method, path in [("POST", "/v1/jobs"), ("GET", "/v1/jobs"), ("GET", "/v1/balance"), ("POST", "/v1/quotes")]:
        answer = await api.request(method, path, headers=header, json=ORDER if method == "POST" else None)

        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_revoked_or_expired_key_works_no_more(api, db):
    caller, key = await make.make_key(db)
    _, expired = await make.make_key(db, expires_in=timedelta(microseconds=1))
    async with db.session() as session:
        await session.execute(text("UPDATE api_keys SET revoked_at = now() WHERE id = :id"), {"id": caller.key_id})

    for dead in (key, expired):
        assert (await api.get("/v1/jobs", headers={"Authorization": f"Bearer {dead}"})).status_code == 401


async def test_a_key_may_only_do_what_its_scopes_say(api, db):
    _, key = await make.make_key(db, scopes=(Scope.JOBS_READ,))
    api.headers["Authorization"] = f"Bearer {key}"

    assert (await api.get("/v1/jobs")).status_code == 200
    assert (await order(api)).status_code == 403
    assert (await api.get("/v1/balance")).json()["code"] == "forbidden"


async def test_a_job_can_be_looked_at_by_its_tenant_only(api, db, caller):
    job_id = (await order(api)).json()["id"]
    _, stranger = await make.make_key(db)

    own = await api.get(f"/v1/jobs/{job_id}")
    other = await api.get(f"/v1/jobs/{job_id}", headers={"Authorization": f"Bearer {stranger}"})

    assert (own.status_code, own.json()["input"]) == (200, ORDER["input"])
    assert (other.status_code, other.json()["code"]) == (404, "not_found")


async def test_a_finished_job_shows_its_output_and_charge(api, db, caller):
    intent = await make.taken(db, caller)
    await make.submit(db, intent)
    await make.report(db, intent, make.success())

    job = (await api.get(f"/v1/jobs/{intent.job.id}")).json()

    assert (job["status"], job["waiting"], job["output"]) == ("succeeded", None, make.OUTPUT)
    assert (job["cost"]["held"], job["cost"]["charged"]) == ("0.00", "2.10")
    assert job["fal"] == {"request_id": "req-1", "queue_position": None}
    assert job["created_at"].endswith("Z")


async def test_pages_show_every_job_once_newest_first(api, caller):
    made = [(await order(api, {**ORDER, "metadata": {"n": str(n)}})).json()["id"] for n in range(7)]

    seen, cursor = [], None
    while True:
        page = (await api.get("/v1/jobs", params={"limit": 3, **({"cursor": cursor} if cursor else {})})).json()
        seen += [job["id"] for job in page["data"]]
        cursor = page["next_cursor"]
        await order(api)  # what is added meanwhile moves no page
        if cursor is None:
            break

    assert seen == made[::-1]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"status": "queued"}, 2),
        ({"status": "succeeded"}, 1),
        ({"status": ["queued", "succeeded"]}, 3),
        ({"model": make.O3}, 3),
        ({"model": "other"}, 0),
        ({"end_user": "ada"}, 1),
        ({"metadata.color": "red"}, 1),
        ({"metadata.color": "red", "end_user": "ada"}, 1),
        ({"metadata.color": "blue"}, 0),
        ({"created_after": "2020-01-01T00:00:00Z"}, 3),
        ({"created_before": "2020-01-01T00:00:00Z"}, 0),
    ],
)
async def test_jobs_are_found_by_filter(api, db, caller, filters, found):
    intent = await make.taken(db, caller)
    await make.submit(db, intent)
    await make.report(db, intent, make.success())
    await order(api, {**ORDER, "end_user": "ada", "metadata": {"color": "red"}})
    await order(api)

    assert len((await api.get("/v1/jobs", params=filters)).json()["data"]) == found


@pytest.mark.parametrize(
    "params",
    [{"cursor": "!"}, {"cursor": "AAAA"}, {"limit": 0}, {"limit": 101}, {"status": "x"}, {"created_after": "x"}],
)
async def test_a_wrong_filter_is_named(api, caller, params):
    answer = await api.get("/v1/jobs", params=params)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["errors"][0]["pointer"].startswith(next(iter(params)))


@pytest.mark.parametrize("minutes", [0, 23 * 60 + 59, -(23 * 60 + 59)])
async def test_an_order_for_later_says_what_it_waits_for(api, db, caller, minutes):
    later = clock.now() + timedelta(hours=1)
    written = later.astimezone(timezone(timedelta(minutes=minutes))).isoformat()

    job = (await order(api, {**ORDER, "run_after": written})).json()

    assert job["waiting"]["for"] == "run_after"
    assert datetime.fromisoformat(job["run_after"]) == later
    assert await make.take(db) == []


async def test_every_answer_names_its_request(api):
    first, second = await api.get("/livez"), await api.get("/nowhere")

    assert (first.status_code, second.status_code) == (204, 404)
    assert second.json()["request_id"] == second.headers["x-request-id"] != first.headers["x-request-id"]
    assert second.headers["content-type"] == "application/problem+json"


async def test_a_method_that_is_not_there_is_told_as_a_problem(api):
    answer = await api.delete("/v1/jobs")

    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


@contextmanager
def deployed_logs() -> Iterator[None]:
    """Logs as they are where Callsheet runs, and for what comes after as they were."""
    root, config = logging.getLogger(), structlog.get_config()
    level, handlers = root.level, root.handlers[:]
    logs.setup(json=True)
    # Else each logger that is used in here stays as it is.
    structlog.configure(cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(**config)
        root.setLevel(level)
        root.handlers[:] = handlers


async def test_an_error_of_ours_tells_nothing_of_our_insides(api, db, caller, capfd):
    async with db.session() as session:
        await session.execute(text("ALTER TABLE jobs ADD CONSTRAINT ck_jobs_none CHECK (status = 'none') NOT VALID"))

    with deployed_logs():
        answer = await order(api)

    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    logged = capfd.readouterr().err
    assert answer.json()["request_id"] in logged
    for told in (answer.text, logged):
        assert "mecha" not in told
        assert "INSERT" not in told


async def test_the_page_with_the_reference_names_no_other_site(api):
    page = await api.get("/docs")

    assert page.status_code == 200
    assert "http" not in page.text.replace("Content-Security-Policy", "")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in ("swagger-ui-bundle.js", "swagger-ui.css", "start.js"):
        assert (await api.get(f"/docs/static/{path}")).status_code == 200
