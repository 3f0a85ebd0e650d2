"""The busy doors answer to the letter what the framework's routes answer, and let through what they aren't made for."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from app import clock
from app.jobs import doors
from tests import factories as make
from tests.signing import OTHER_KEY, signed

BODY: dict[str, Any] = {"model": make.O3, "input": {"prompt": "a mecha", "duration": "5"}}
JSON = {"Content-Type": "application/json"}
TAKEN = {"plain", "everything", "an hour's deadline", "a callback"}
"""Those of ORDERS that the door takes; the others it leaves to the route, or to the app to say what is wrong."""
ORDERS: dict[str, tuple[Any, dict[str, str]]] = {
    "plain": (BODY, JSON),
    "everything": (
        {
            **BODY,
            "metadata": {"a": "é"},
            "end_user": "u",
            "priority": "low",
            "deadline_s": 600,
            "max_cost": "5",
            "run_after": (clock.now() + timedelta(minutes=5)).isoformat(),
        },
        JSON,
    ),
    "an hour's deadline": ({**BODY, "deadline_s": 3600, "priority": "high"}, JSON),
    "with a charset": (BODY, {"Content-Type": "application/json; charset=utf-8"}),
    "as text": (BODY, {"Content-Type": "text/plain"}),
    "a callback": ({**BODY, "callback_url": "https://caller.example/x"}, JSON),
    "a preference": (BODY, {**JSON, "Prefer": "respond-async"}),
    "a bad key": (BODY, {**JSON, "Idempotency-Key": "two words"}),
    "a long key": (BODY, {**JSON, "Idempotency-Key": "x" * 256}),
    "no JSON": (b"{", JSON),
    "not text": (b'{"model": "\xff"}', JSON),
    "nothing": (b"", JSON),
    "a list": ([], JSON),
    "an unknown field": ({**BODY, "x": 1}, JSON),
    "an unknown model": ({**BODY, "model": "kling"}, JSON),
    "a bad input": ({**BODY, "input": {"duration": "99"}}, JSON),
    "too cheap": ({**BODY, "max_cost": "1"}, JSON),
    "a file that isn't there": (
        {**BODY, "input": {**BODY["input"], "image_url": f"callsheet://files/{uuid4()}"}},
        JSON,
    ),
    "a NUL": ({**BODY, "input": {"prompt": "\x00", "duration": "5"}}, JSON),
    "NaN": (b'{"model": "%s", "input": {"prompt": NaN}}' % make.O3.encode(), JSON),
    "half a surrogate pair": (b'{"model": "%s", "input": {"prompt": "\\ud800"}}' % make.O3.encode(), JSON),
    "no caller": (BODY, {**JSON, "Authorization": ""}),
    "a stranger": (BODY, {**JSON, "Authorization": "Bearer cs_nobody"}),
    "too large": (b'"' + b"x" * 40_000_000 + b'"', JSON),
}
CHANGING = {"x-request-id", "location", "content-length"}


@pytest.fixture
async def caller(api, db):
    caller, key = await make.make_key(db)
    api.headers["Authorization"] = f"Bearer {key}"
    return caller


def without_doors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "_door", lambda _: None)


def alike(answer: httpx.Response) -> tuple[int, dict[str, str], Any]:
    """An answer without what no two have in common."""
    told = answer.json()
    for name in ("id", "request_id", "created_at", "deadline_at"):
        if told.get(name):
            told[name] = "…"
    return answer.status_code, {k: v for k, v in answer.headers.items() if k not in CHANGING}, told


def answered(api: Any) -> int:
    """How many requests the doors answered, so that no test holds the routes beside themselves."""
    return int(api._transport.app.answered)


@pytest.mark.parametrize("name", ORDERS)
async def test_an_order_is_answered_alike_with_and_without_its_door(api, caller, monkeypatch, name):
    body, headers = ORDERS[name]
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()

    by_door = await api.post("/v1/jobs", content=raw, headers=headers)
    without_doors(monkeypatch)
    by_route = await api.post("/v1/jobs", content=raw, headers=headers)

    assert alike(by_door) == alike(by_route)
    assert by_door.headers.keys() == by_route.headers.keys()
    assert answered(api) == (name in TAKEN)


async def test_a_repeat_is_answered_alike(api, caller, monkeypatch):
    async def ordered() -> httpx.Response:
        answer: httpx.Response = await api.post("/v1/jobs", json=BODY, headers={"Idempotency-Key": "1"})
        return answer

    first, by_door = await ordered(), await ordered()
    without_doors(monkeypatch)
    by_route = await ordered()

    assert (first.status_code, by_door.status_code, by_route.status_code) == (202, 200, 200)
    assert answered(api) == 2
    assert by_door.json() == by_route.json() == first.json()
    assert by_door.headers["idempotent-replayed"] == by_route.headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("which", ["queued", "succeeded", "failed", "another's", "no id", "in capitals", "nobody's"])
async def test_a_job_is_shown_alike_with_and_without_its_door(api, db, caller, monkeypatch, which):
    owner = await make.make_tenant(db) if which == "another's" else caller
    intent = await make.taken(db, owner)
    job_id = str(intent.job.id)
    if which == "queued":
        job_id = str((await make.accept(db, owner)).id)
    elif which in {"succeeded", "failed"}:
        await make.submit(db, intent)
        await make.report(db, intent, make.success() if which == "succeeded" else make.failure())
    path = {"no id": "/v1/jobs/x", "in capitals": f"/v1/jobs/{job_id.upper()}"}.get(which, f"/v1/jobs/{job_id}")
    headers = {"Authorization": "Bearer cs_x"} if which == "nobody's" else {}

    by_door = await api.get(path, headers=headers)
    without_doors(monkeypatch)
    by_route = await api.get(path, headers=headers)

    assert alike(by_door) == alike(by_route)
    assert answered(api) == (which in {"queued", "succeeded", "failed"})


async def test_a_webhook_is_answered_alike(api, db, caller, monkeypatch):
    news = {"request_id": "req-1", "gateway_request_id": "g", "status": "OK", "payload": make.OUTPUT, "error": None}
    answers = []
    for _ in range(2):
        intent = await make.taken(db, caller)
        raw, headers = signed(news)
        forged = signed(news, key=OTHER_KEY)[1]
        for at, told in ((intent.token, forged), ("nobody", headers), (intent.token, headers), (intent.token, headers)):
            answers.append(alike(await api.post(f"/webhooks/fal/{at}", content=raw, headers=told)))
        without_doors(monkeypatch)
        async with db.session() as session:
            await session.execute(text("UPDATE attempts SET fal_request_id = id::text"))

    assert answers[:4] == answers[4:]
    assert [status for status, *_ in answers[:4]] == [401, 404, 200, 200]
    assert answered(api) == 2


async def test_many_orders_at_once_are_answered_each_with_its_own(api, db, caller):
    prompts = [f"mecha {number}" for number in range(40)]
    orders = ({**BODY, "input": {"prompt": prompt, "duration": "5"}} for prompt in prompts)

    answers = await asyncio.gather(*(api.post("/v1/jobs", json=order) for order in orders))
    shown = await asyncio.gather(*(api.get(answer.headers["location"]) for answer in answers))

    assert [answer.json()["input"]["prompt"] for answer in answers] == prompts
    assert [answer.json() for answer in shown] == [answer.json() for answer in answers]
    assert len({answer.json()["id"] for answer in answers}) == len(prompts)
    assert answered(api) == 2 * len(prompts)
    assert (await make.balances(db, caller))[1] == Decimal("2.10") * len(prompts)


@pytest.mark.parametrize(("order", "status"), [(BODY, 202), ({**BODY, "x": 1}, 422)])
async def test_an_order_may_come_in_parts(api, caller, order, status):

    async def parts() -> AsyncIterator[bytes]:
        for byte in json.dumps(order).encode():
            yield bytes([byte])

    answer = await api.post("/v1/jobs", content=parts(), headers=JSON)

    assert answer.status_code == status, answer.text


async def test_a_request_that_its_door_leaves_alone_is_counted_once(api, caller, monkeypatch):
    known = api._transport.app.state.known
    monkeypatch.setattr(known, "_per_key", 60)
    now_s = known._asked._now()
    known._asked._now = lambda: now_s

    left = [(await api.post("/v1/jobs", json=body)).headers["ratelimit"] for body in (BODY, {"x": 1}, BODY)]

    assert [told.split(";")[1] for told in left] == ["r=59", "r=58", "r=57"]


async def test_an_order_that_was_placed_when_its_door_failed_is_not_placed_again(api, db, caller, monkeypatch):
    """Whoever reads the answer may send it again, with its key; we may not."""

    def fail(_: Any) -> bytes:
        raise OSError

    monkeypatch.setattr(doors, "to_json", fail)

    answer = await api.post("/v1/jobs", json=BODY)

    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    async with db.session() as session:
        assert await session.scalar(text("SELECT count(*) FROM jobs")) == 1
