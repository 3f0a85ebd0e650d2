"""The doors: endpoints, their secrets, deliveries and replays, each for its own tenant only."""

import asyncio
import json

import pytest

from tests import factories as make
from tests.callbacks import rows
from tests.callbacks.receiver import OK, receiving, says
from tests.world import run_once

URL = "https://caller.example/callbacks"
ANY = "0197a2b8-6c4e-7d31-9f00-3a5f0c1d2e4b"


@pytest.fixture
async def mine(db, api):
    """A tenant whose key the client carries."""
    caller, key = await make.make_key(db)
    api.headers["Authorization"] = f"Bearer {key}"
    return caller


async def made(api, **fields):
    answer = await api.post("/v1/endpoints", json={"url": URL, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_an_endpoint_is_made_shown_changed_and_deleted(api, mine):
    new = await made(api, description="production")
    path = f"/v1/endpoints/{new['id']}"

    shown = (await api.get(path)).json()
    changed = (await api.patch(path, json={"events": ["job.safe", "job.safe"], "description": None})).json()
    listed = (await api.get("/v1/endpoints")).json()["data"]
    gone = await api.delete(path)

    assert new["secret"].startswith("whsec_")
    assert {**shown, "secret": new["secret"]} == new
    assert shown["events"] == ["job.succeeded", "job.failed", "job.canceled", "job.expired"]
    assert (changed["events"], changed["description"], changed["url"]) == (["job.safe"], None, URL)
    assert listed == [changed]
    assert gone.status_code == 204
    assert (await api.get(path)).status_code == 404
    assert (await api.get("/v1/endpoints")).json()["data"] == []


async def test_a_secret_is_shown_once_and_kept_out_of_every_other_answer(api, mine):
    new = await made(api)
    path = f"/v1/endpoints/{new['id']}"

    rotated = (await api.post(f"{path}/rotate", json={"overlap_s": 60})).json()
    at_once = (await api.post(f"{path}/rotate", json={"overlap_s": 0})).json()

    assert len({new["secret"], rotated["secret"], at_once["secret"]}) == 3
    assert (rotated["old_secret_until"] is not None, at_once["old_secret_until"]) == (True, None)
    for answer in (await api.get(path), await api.get("/v1/endpoints"), await api.patch(path, json={})):
        assert "whsec_" not in answer.text


@pytest.mark.parametrize(
    "url",
    [
        "ftp://caller.example/",
        "caller.example",
        "https://user:password@caller.example/",
        "https://caller.example/#part",
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://[::ffff:10.0.0.1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://localhost:22/",
        "https://caller.example/a b",
        "https://caller.example/ü",
        "https://[/",
    ],
)
async def test_an_address_that_can_not_be_called_is_refused_at_every_door(api, mine, url):
    new = await made(api)
    order = {"model": make.O3, "input": {"prompt": "a mecha", "duration": "5"}, "callback_url": url}

    for answer, pointer in (
        (await api.post("/v1/endpoints", json={"url": url}), "/url"),
        (await api.patch(f"/v1/endpoints/{new['id']}", json={"url": url}), "/url"),
        (await api.post("/v1/jobs", json=order), "/callback_url"),
    ):
        assert answer.status_code == 422
        (fault,) = answer.json()["errors"]
        assert (fault["pointer"], fault["code"]) == (pointer, "not_callable")


async def test_the_same_key_with_another_address_is_another_order(api, mine):
    order = {"model": make.O3, "input": {"prompt": "a mecha", "duration": "5"}, "callback_url": URL}
    key = {"Idempotency-Key": "order-1"}

    first = await api.post("/v1/jobs", json=order, headers=key)
    again = await api.post("/v1/jobs", json=order, headers=key)
    other = await api.post("/v1/jobs", json={**order, "callback_url": f"{URL}/2"}, headers=key)

    assert (first.status_code, again.status_code, other.status_code) == (202, 200, 409)
    assert first.json()["callback_url"] == URL


async def test_the_secret_of_jobs_stays_until_it_is_replaced(api, mine):
    first, again = [(await api.get("/v1/callback-secret")).json() for _ in range(2)]

    rotated = (await api.post("/v1/callback-secret/rotate", json={})).json()

    assert first == again == {"secret": first["secret"], "old_secret_until": None}
    assert rotated["secret"] != first["secret"]
    assert rotated["old_secret_until"]
    assert (await api.get("/v1/callback-secret")).json() == rotated
    assert (await api.get("/v1/endpoints")).json()["data"] == []


async def test_twenty_endpoints_are_enough_also_when_all_come_at_once(api, mine):
    for _ in range(17):
        await made(api)

    answers = await asyncio.gather(*(api.post("/v1/endpoints", json={"url": URL}) for _ in range(9)))

    refused = [answer.json()["code"] for answer in answers if answer.status_code != 201]
    assert refused == ["too_many_endpoints"] * 6
    assert len((await api.get("/v1/endpoints")).json()["data"]) == 20


async def test_a_test_goes_the_way_of_every_callback(db, api, mine, sender):
    async with receiving(says("200 OK", b"hello")) as receiver:
        endpoint = await rows.make_endpoint(db, mine, receiver.url)
        sent = await api.post(f"/v1/endpoints/{endpoint.id}/test")
        await run_once(sender)

    assert sent.status_code == 202
    told = (await api.get(sent.headers["location"])).json()
    assert (told["status"], told["type"], told["job_id"]) == ("delivered", "endpoint.test", None)
    assert told["body"].encode() == receiver.got[0].body
    assert [(tried["status_code"], tried["body"]) for tried in told["attempts"]] == [(200, "hello")]
    assert json.loads(told["body"])["data"] == {"endpoint_id": str(endpoint.id)}


async def test_disabling_gives_up_what_waits_and_enabling_lets_it_be_replayed(db, api, mine):
    new = await made(api)
    path = f"/v1/endpoints/{new['id']}"
    await rows.finished(db, mine)
    (waiting,) = (await api.get("/v1/deliveries", params={"status": "pending"})).json()["data"]

    off = (await api.patch(path, json={"enabled": False})).json()
    assert (off["enabled"], off["disabled_why"]) == (False, "by_caller")
    (dead,) = (await api.get("/v1/deliveries", params={"status": "dead"})).json()["data"]
    assert (dead["id"], dead["dead_why"], dead["next_try_at"]) == (waiting["id"], "endpoint_disabled", None)
    for refused in (f"{path}/test", f"/v1/deliveries/{dead['id']}/replay"):
        assert (await api.post(refused)).json()["code"] == "endpoint_disabled"
    assert (await api.post("/v1/deliveries/replay", json={})).json() == {"count": 0, "dry_run": False}

    on = (await api.patch(path, json={"enabled": True})).json()
    assert (on["enabled"], on["disabled_at"], on["failing_since"]) == (True, None, None)
    replayed = await api.post(f"/v1/deliveries/{dead['id']}/replay")
    assert (replayed.status_code, replayed.json()["status"], replayed.json()["tries"]) == (202, "pending", 0)


async def test_many_are_counted_then_replayed_by_filter_and_bound(db, api, mine, sender):
    async with receiving() as receiver:
        endpoint = await rows.make_endpoint(db, mine, receiver.url)
        other = await rows.make_endpoint(db, mine, receiver.url)
        await rows.make_tests(db, endpoint, 2)
        await rows.make_tests(db, other, 1)
        await run_once(sender)
        await run_once(sender)
    order = {"endpoint_id": str(endpoint.id), "status": "delivered"}

    async def replay(**more):
        return (await api.post("/v1/deliveries/replay", json={**order, **more})).json()["count"]

    assert await replay(status="dead") == 0
    assert await replay(created_before="2026-01-01T00:00:00Z") == 0
    assert await replay(dry_run=True) == 2
    assert await replay(limit=1) == 1
    assert await replay() == 1
    assert await replay() == 0
    listed = (await api.get("/v1/deliveries", params={"endpoint_id": str(endpoint.id)})).json()["data"]
    assert [row["status"] for row in listed] == ["pending", "pending"]


async def test_a_delivery_that_is_replayed_keeps_its_id_and_its_tries(db, api, mine, sender):
    async with receiving(says("200 OK", b"first"), OK) as receiver:
        await rows.make_tests(db, await rows.make_endpoint(db, mine, receiver.url))
        await run_once(sender)
        (row,) = await rows.deliveries(db, mine)
        await api.post(f"/v1/deliveries/{row.id}/replay")
        await run_once(sender)

    first, second = receiver.got
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)
    told = (await api.get(f"/v1/deliveries/{row.id}")).json()
    assert [tried["body"] for tried in told["attempts"]] == ["first", ""]


async def test_the_list_is_narrowed_and_paged(db, api, mine):
    endpoint = await rows.make_endpoint(db, mine, URL)
    jobs = [await rows.finished(db, mine, callback_url=URL) for _ in range(2)]

    of_job = (await api.get("/v1/deliveries", params={"job_id": str(jobs[0].id)})).json()["data"]
    first = (await api.get("/v1/deliveries", params={"limit": 3})).json()
    rest = (await api.get("/v1/deliveries", params={"limit": 3, "cursor": first["next_cursor"]})).json()

    assert {row["endpoint_id"] for row in of_job} == {None, str(endpoint.id)}
    assert {row["callback_url"] for row in of_job} == {None, URL}
    assert [len(first["data"]), len(rest["data"]), rest["next_cursor"]] == [3, 1, None]
    ids = [row["id"] for row in first["data"] + rest["data"]]
    assert ids == sorted(ids, reverse=True)


async def test_what_belongs_to_another_tenant_is_not_there(db, api, mine):
    other = await make.make_tenant(db)
    endpoint = await rows.make_endpoint(db, other, URL)
    await rows.make_tests(db, endpoint)
    (delivery,) = await rows.deliveries(db, other)
    theirs = f"/v1/endpoints/{endpoint.id}"

    answers = [
        await api.get(theirs),
        await api.patch(theirs, json={"enabled": False}),
        await api.delete(theirs),
        await api.post(f"{theirs}/rotate", json={}),
        await api.post(f"{theirs}/test"),
        await api.get(f"/v1/deliveries/{delivery.id}"),
        await api.post(f"/v1/deliveries/{delivery.id}/replay"),
    ]

    assert [answer.status_code for answer in answers] == [404] * 7
    for found in ("/v1/endpoints", "/v1/deliveries", f"/v1/deliveries?endpoint_id={endpoint.id}"):
        assert (await api.get(found)).json()["data"] == []
    asked = {"endpoint_id": str(endpoint.id), "dry_run": True}
    assert (await api.post("/v1/deliveries/replay", json=asked)).json()["count"] == 0
    assert (await rows.look(db, endpoint)).disabled_at is None


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/endpoints"),
        ("PATCH", f"/v1/endpoints/{ANY}"),
        ("DELETE", f"/v1/endpoints/{ANY}"),
        ("POST", f"/v1/endpoints/{ANY}/rotate"),
        ("POST", f"/v1/endpoints/{ANY}/test"),
        ("GET", "/v1/callback-secret"),
        ("POST", "/v1/callback-secret/rotate"),
        ("POST", f"/v1/deliveries/{ANY}/replay"),
        ("POST", "/v1/deliveries/replay"),
    ],
)
async def test_a_key_that_may_only_read_changes_nothing_and_sees_no_secret(db, api, method, path):
    _, key = await make.make_key(db, scopes=["jobs:read"])

    body = {"url": URL} if path == "/v1/endpoints" else {}
    answer = await api.request(method, path, json=body, headers={"Authorization": f"Bearer {key}"})

    assert answer.status_code == 403


async def test_the_openapi_document_tells_what_is_posted(api):
    document = (await api.get("/openapi.json")).json()

    assert set(document["webhooks"]) == {
        f"job.{name}" for name in ("submitted", "in_progress", "succeeded", "failed", "canceled", "expired", "safe")
    }
    body = document["webhooks"]["job.succeeded"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/Callback"}
    assert document["components"]["schemas"]["Callback"]["examples"]
