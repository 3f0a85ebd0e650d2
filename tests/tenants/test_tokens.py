"""Browser tokens: what one may do is its end user's, its models', its actions' and within its spend."""

import asyncio
import re
from decimal import Decimal
from functools import partial
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from app.billing.prices import quote
from app.jobs import intake
from app.tenants import known, minting
from app.tenants.auth import find
from app.tenants.keys import Action, digest
from tests import factories as make

ALL = [str(action) for action in Action]


@pytest.fixture
async def backend(api, db) -> Any:
    """A tenant's backend, which has a key."""
    _, key = await make.make_key(db)
    api.headers["Authorization"] = f"Bearer {key}"
    return api


async def new_token(backend: httpx.AsyncClient, **wanted: Any) -> Any:
    answer = await backend.post("/v1/tokens", json={"end_user": "ann", "actions": ALL, **wanted})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def call(backend: httpx.AsyncClient, token: Any, method: str, path: str, **options: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token['token']}", **options.pop("headers", {})}
    return await backend.request(method, path, headers=headers, **options)


def order(**body: Any) -> dict[str, Any]:
    return {"model": make.O3, "input": {"prompt": "a mecha lands", "duration": "5"}, **body}


async def test_a_token_is_shown_once_and_kept_as_a_hash(backend, db):
    token = await new_token(backend, max_spend="5", models=[make.O3])

    async with db.session() as session:
        row = (await session.execute(text("SELECT * FROM browser_tokens"))).mappings().one()
    assert token["token"].startswith("ct_")
    assert token["token"] not in str(dict(row))
    assert row["digest"] == digest(token["token"])
    assert (token["max_spend"], token["models"], token["end_user"]) == ("5.00", [make.O3], "ann")


async def test_what_it_orders_is_its_end_users_and_nobody_elses(backend):
    token = await new_token(backend)

    mine = await call(backend, token, "POST", "/v1/jobs", json=order())
    same = await call(backend, token, "POST", "/v1/jobs", json=order(end_user="ann"))
    other = await call(backend, token, "POST", "/v1/jobs", json=order(end_user="bob"))

    assert (mine.status_code, mine.json()["end_user"]) == (202, "ann")
    assert same.status_code == 202
    assert (other.status_code, other.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize("whose", ["another end user's", "another model's", "nobody's", "another tenant's"])
async def test_every_jobs_route_knows_only_what_the_token_may_see(backend, db, whose):
    token = await new_token(backend, models=[make.O3])
    mine = (await call(backend, token, "POST", "/v1/jobs", json=order())).json()
    model = make.EDIT if whose == "another model's" else make.O3
    body = {"model": model, "input": make.an_order(model).input, "end_user": "ann"}
    if whose == "another end user's":
        body["end_user"] = "bob"
    elif whose == "nobody's":
        del body["end_user"]
    elif whose == "another tenant's":
        _, key = await make.make_key(db)
        backend = httpx.AsyncClient(transport=backend._transport, base_url=backend.base_url)
        backend.headers["Authorization"] = f"Bearer {key}"
    hidden = (await backend.post("/v1/jobs", json=body)).json()["id"]

    for method, path in [("GET", ""), ("GET", "/output"), ("POST", "/cancel")]:
        answer = await call(backend, token, method, f"/v1/jobs/{hidden}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
    for query in ({}, {"end_user": body.get("end_user", "")}, {"model": model}):
        page = (await call(backend, token, "GET", "/v1/jobs", params=query)).json()["data"]
        assert {job["id"] for job in page} <= {mine["id"]}
    assert (await call(backend, token, "GET", f"/v1/jobs/{mine['id']}")).status_code == 200
    assert (await call(backend, token, "POST", f"/v1/jobs/{mine['id']}/cancel")).json()["status"] == "canceled"


async def test_it_orders_only_from_its_models_and_sees_no_others(backend):
    token = await new_token(backend, models=[make.O3])
    body = {"model": make.EDIT, "input": make.an_order(make.EDIT).input}

    for path in ("/v1/jobs", "/v1/quotes"):
        answer = await call(backend, token, "POST", path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert (await call(backend, token, "GET", f"/v1/models/{make.EDIT}")).status_code == 403
    models = (await call(backend, token, "GET", "/v1/models")).json()["data"]
    assert [model["id"] for model in models] == [make.O3]


NEEDS = {
    "create_job": "create",
    "create_quote": "create",
    "list_models": "create",
    "get_model": "create",
    "list_jobs": "read",
    "get_job": "read",
    "get_job_output": "read",
    "cancel_job": "cancel",
    "stream_events": "events",
    "stream_job_events": "events",
    "get_job_events_link": "events",
    "create_file": "files",
    "list_files": "read",
    "get_file": "read",
    "get_file_content": "read",
}


async def test_everything_that_is_not_one_of_its_actions_is_refused(backend):
    document = (await backend.get("/openapi.json")).json()
    tokens = {action: await new_token(backend, actions=[action]) for action in ALL}
    some_id = "0197a2b8-6c4e-7d31-9f00-3a5f0c1d2e4b"
    tried = 0

    for path, item in document["paths"].items():
        for method, operation in item.items():
            schemes = {name for way in operation.get("security", []) for name in way}
            if not schemes:
                continue
            url = path.replace("{model}", make.O3)
            url = re.sub(r"\{\w+\}", some_id, url)
            allowed = NEEDS.get(operation["operationId"])
            assert ("BrowserToken" in schemes) == (allowed is not None), operation["operationId"]
            for action, token in tokens.items():
                if action == allowed and operation["operationId"] == "stream_events":
                    continue  # It would never end.
                answer = await call(backend, token, method, url, json={} if method in {"post", "patch"} else None)
                if action != allowed:
                    assert answer.status_code in {403, 422}, (operation["operationId"], action, answer.text)
                    # A body that isn't one is judged first; it tells nothing.
                    assert answer.json()["code"] in {"forbidden", "invalid_request"}
                    tried += 1
                else:
                    assert answer.status_code != 403, (operation["operationId"], action)
    assert tried > 50


async def test_many_jobs_at_once_and_retries_need_a_key(backend):
    token = await new_token(backend)
    mine = (await call(backend, token, "POST", "/v1/jobs", json=order())).json()
    await call(backend, token, "POST", f"/v1/jobs/{mine['id']}/cancel")

    for path, body in [
        ("/v1/jobs/batch", {"orders": [order()]}),
        ("/v1/jobs/cancel", {"end_user": "ann"}),
        ("/v1/jobs/retry", {"end_user": "ann"}),
        (f"/v1/jobs/{mine['id']}/retry", None),
    ]:
        answer = await call(backend, token, "POST", path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path
    assert (await backend.post(f"/v1/jobs/{mine['id']}/retry")).status_code == 202


async def test_it_cannot_say_where_callbacks_go(backend):
    token = await new_token(backend)
    body = order(callback_url="https://93.184.216.34/")

    answer = await call(backend, token, "POST", "/v1/jobs", json=body)

    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert (await backend.post("/v1/jobs", json=body)).status_code == 202


async def test_it_waits_for_and_follows_the_end_of_its_own_jobs_only(backend):
    token = await new_token(backend)
    mine = (await call(backend, token, "POST", "/v1/jobs", json=order())).json()
    other = (await backend.post("/v1/jobs", json=order(end_user="bob"))).json()
    for job in (mine, other):
        await backend.post(f"/v1/jobs/{job['id']}/cancel")

    events = await call(backend, token, "GET", f"/v1/jobs/{mine['id']}/events")
    hidden = await call(backend, token, "GET", f"/v1/jobs/{other['id']}/events")

    assert (events.status_code, '"status":"canceled"' in events.text) == (200, True)
    assert (hidden.status_code, hidden.json()["code"]) == (404, "not_found")


async def test_a_token_cannot_make_tokens_or_keys_or_see_money(backend):
    token = await new_token(backend)

    for method, path, body in [
        ("POST", "/v1/tokens", {"end_user": "bob", "actions": ["read"]}),
        ("POST", "/v1/keys", {"name": "x", "scopes": ["jobs:read"]}),
        ("GET", "/v1/keys", None),
        ("GET", "/v1/balance", None),
        ("GET", "/v1/ledger", None),
        ("GET", "/v1/admin/verify", None),
        ("GET", "/v1/admin/audit", None),
    ]:
        answer = await call(backend, token, method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path


async def test_a_key_hands_on_no_more_than_it_has(api, db):
    _, key = await make.make_key(db, scopes=["jobs:write"])
    api.headers["Authorization"] = f"Bearer {key}"

    answer = await api.post("/v1/tokens", json={"end_user": "ann", "actions": ["create", "read"]})

    assert answer.status_code == 403
    assert "jobs:read" in answer.json()["detail"]


async def test_a_burst_cannot_walk_past_what_it_may_spend(backend, db):
    token = await new_token(backend, max_spend="10.60")

    answers = await asyncio.gather(*(call(backend, token, "POST", "/v1/jobs", json=order()) for _ in range(20)))

    codes = sorted(answer.status_code for answer in answers)
    assert codes == [202] * 5 + [402] * 15
    assert {answer.json()["code"] for answer in answers if answer.status_code == 402} == {"token_spend_exceeded"}
    async with db.session() as session:
        spent, ordered = (
            await session.execute(text("SELECT spent, (SELECT sum(quoted) FROM jobs) FROM browser_tokens"))
        ).one()
        held = await session.scalar(text("SELECT sum(amount) FROM ledger_entries WHERE kind = 'hold'"))
    assert spent == ordered == held == Decimal("10.50")


@settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(cents=st.integers(0, 2500), seconds=st.lists(st.sampled_from([3, 5, 10, 15]), min_size=1, max_size=8))
async def test_orders_at_once_of_any_size_stay_within_the_bound(backend, db, cents, seconds):
    bound = Decimal(cents) / 100
    token = await new_token(backend, max_spend=str(bound))
    async with db.session() as session:
        caller = await find(session, token["token"])
    assert caller is not None

    async def accept(duration: int) -> Decimal:
        wanted = make.an_order(input={"prompt": "x", "duration": str(duration)}, end_user="ann")
        price = quote(make.CATALOG.known(make.O3), wanted.input)
        try:
            await db.run(partial(intake.accept, caller=caller, order=wanted, quote=price))
        except minting.TokenSpent:
            return Decimal(0)
        return price.amount

    ordered = sum(await asyncio.gather(*map(accept, seconds)))

    refused = sum(seconds) * Decimal("0.42") - ordered
    assert ordered <= bound
    assert refused == 0 or ordered + Decimal("0.42") * max(seconds) > bound


async def test_a_repeat_by_idempotency_key_spends_once(backend, db):
    token = await new_token(backend, max_spend="2.10")

    first = await call(backend, token, "POST", "/v1/jobs", json=order(), headers={"Idempotency-Key": "k"})
    again = await call(backend, token, "POST", "/v1/jobs", json=order(), headers={"Idempotency-Key": "k"})

    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"]


async def test_idempotency_keys_of_end_users_are_apart(backend):
    ann, bob = await new_token(backend), await new_token(backend, end_user="bob")

    jobs = [
        await call(backend, token, "POST", "/v1/jobs", json=order(), headers={"Idempotency-Key": "k"})
        for token in (ann, bob)
    ]
    own = await backend.post("/v1/jobs", json=order(), headers={"Idempotency-Key": "k"})

    assert [job.status_code for job in (*jobs, own)] == [202, 202, 202]
    assert len({job.json()["id"] for job in (*jobs, own)}) == 3


async def test_a_revoked_token_stops_at_once_here(backend):
    token = await new_token(backend)
    assert (await call(backend, token, "GET", "/v1/jobs")).status_code == 200

    gone = await backend.delete(f"/v1/tokens/{token['id']}")
    again = await backend.delete(f"/v1/tokens/{token['id']}")

    assert (gone.status_code, again.status_code) == (204, 204)
    assert (await call(backend, token, "GET", "/v1/jobs")).status_code == 401


async def test_a_token_revoked_elsewhere_orders_nothing_more_even_while_it_is_remembered(backend, db):
    known = backend._transport.app.state.known
    now_s = known._now()
    known._now = lambda: now_s
    token = await new_token(backend)
    assert (await call(backend, token, "GET", "/v1/jobs")).status_code == 200
    async with db.session() as session:
        await session.execute(text("UPDATE browser_tokens SET revoked_at = now()"))

    answer = await call(backend, token, "POST", "/v1/jobs", json=order())

    assert (answer.status_code, answer.json()["code"]) == (401, "token_over")


@pytest.mark.parametrize(
    "ending",
    [
        "UPDATE browser_tokens SET expires_at = now()",
        "UPDATE browser_tokens SET revoked_at = now()",
        "UPDATE api_keys SET revoked_at = now()",
        "UPDATE api_keys SET expires_at = now()",
    ],
)
async def test_a_token_ends_by_its_time_its_revocation_or_with_its_key(backend, db, ending):
    token = await new_token(backend)
    async with db.session() as session:
        assert await find(session, token["token"]) is not None
        await session.execute(text(ending))

    async with db.session() as session:
        assert await find(session, token["token"]) is None


async def test_those_that_work_are_listed_in_pages_without_their_secrets(backend, db):
    made = [await new_token(backend, end_user=whose) for whose in ("ann", "bob", "ann")]
    await call(backend, made[0], "POST", "/v1/jobs", json=order())
    expired, revoked = await new_token(backend), await new_token(backend)
    async with db.session() as session:
        over = text("UPDATE browser_tokens SET expires_at = now() WHERE id = :id")
        await session.execute(over, {"id": expired["id"]})
    await backend.delete(f"/v1/tokens/{revoked['id']}")

    first = (await backend.get("/v1/tokens", params={"limit": 2})).json()
    second = (await backend.get("/v1/tokens", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    anns = (await backend.get("/v1/tokens", params={"end_user": "ann"})).json()["data"]

    assert [token["id"] for token in first["data"] + second["data"]] == [token["id"] for token in reversed(made)]
    assert [token["id"] for token in anns] == [made[2]["id"], made[0]["id"]]
    assert [token["spent"] for token in anns] == ["0.00", "2.10"]
    assert second["next_cursor"] is None
    assert all("token" not in token for token in first["data"])


async def test_tokens_of_a_revoked_key_or_another_tenant_are_not_listed(backend, db):
    await new_token(backend)
    _, others = await make.make_key(db)
    theirs = await backend.get("/v1/tokens", headers={"Authorization": f"Bearer {others}"})
    (mine,) = (await backend.get("/v1/tokens")).json()["data"]
    second = (await backend.post("/v1/keys", json={"name": "x", "scopes": ["jobs:write"]})).json()["key"]
    await backend.delete(f"/v1/keys/{mine['key_id']}")

    after = await backend.get("/v1/tokens", headers={"Authorization": f"Bearer {second}"})

    assert (theirs.json()["data"], after.json()["data"]) == ([], [])


async def test_another_tenants_token_cannot_be_revoked(backend, db):
    token = await new_token(backend)
    _, key = await make.make_key(db)

    answer = await backend.delete(f"/v1/tokens/{token['id']}", headers={"Authorization": f"Bearer {key}"})

    assert answer.status_code == 404
    assert (await call(backend, token, "GET", "/v1/jobs")).status_code == 200


@pytest.mark.parametrize(
    "wrong",
    [{"ttl_s": 3601}, {"ttl_s": 0}, {"end_user": None}, {"actions": []}, {"actions": ["admin"]}, {"max_spend": "-1"}],
)
async def test_what_a_token_may_not_be_is_refused(backend, wrong):
    answer = await backend.post("/v1/tokens", json={"end_user": "ann", "actions": ["read"], **wrong})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_tokens_are_pruned_a_day_after_they_ended(backend, db):
    old, new = await new_token(backend), await new_token(backend)
    async with db.session() as session:
        long_ago = text("UPDATE browser_tokens SET expires_at = now() - interval '25 hours' WHERE id = :id")
        await session.execute(long_ago, {"id": old["id"]})

    await known.prune(db)

    async with db.session() as session:
        assert [str(row) for row in await session.scalars(text("SELECT id FROM browser_tokens"))] == [new["id"]]
