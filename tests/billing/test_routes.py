"""POST /v1/quotes, GET /v1/balance, GET /v1/ledger; GET /v1/models."""

import pytest

from tests import factories as make


@pytest.fixture
async def caller(api, db):
    caller, key = await make.make_key(db)
    api.headers["Authorization"] = f"Bearer {key}"
    return caller


async def test_a_quote_is_what_a_job_would_hold_and_moves_nothing(api, db, caller):
    answer = await api.post("/v1/quotes", json={"model": make.O3, "input": {"prompt": "x", "duration": "7"}})

    quote = answer.json()
    assert answer.status_code == 200
    assert (quote["seconds"], quote["price_per_second"], quote["amount"]) == ("7", "0.42", "2.94")
    assert (quote["verified"], quote["is_maximum"]) == (True, False)
    assert await make.entries_of(db, caller) == []


async def test_a_price_that_is_not_verified_says_so(api, caller):
    model = "fal-ai/kling-video/v1/pro/text-to-video"

    quote = (await api.post("/v1/quotes", json={"model": model, "input": {"prompt": "x", "duration": "10"}})).json()

    assert (quote["amount"], quote["verified"]) == ("1.00", False)
    assert quote["note"]


async def test_a_quote_names_every_fault_as_an_order_would(api, caller):
    body = {"model": make.O3, "input": {"duration": "2", "aspect_ratio": "x"}}

    quoted, ordered = await api.post("/v1/quotes", json=body), await api.post("/v1/jobs", json=body)

    assert quoted.status_code == ordered.status_code == 422
    assert quoted.json()["errors"] == ordered.json()["errors"]


async def test_a_model_without_a_price_cannot_be_ordered(api, caller):
    (unpriced,) = [model for model in make.CATALOG.models if model.price is None]

    answer = await api.post("/v1/jobs", json={"model": unpriced.id, "input": dict(unpriced.example)})

    assert (answer.status_code, answer.json()["code"]) == (422, "unpriced")


async def test_balance_and_ledger_tell_the_story_of_a_job(api, db, caller):
    intent = await make.taken(db, caller)
    await make.submit(db, intent)
    await make.report(db, intent, make.success())

    balance = (await api.get("/v1/balance")).json()
    entries = (await api.get("/v1/ledger", params={"job_id": str(intent.job.id)})).json()["data"]

    assert balance == {"currency": "USD", "available": "-2.10", "held": "0.00", "spent": "2.10", "credit_limit": None}
    assert [(entry["kind"], entry["from_side"], entry["to_side"], entry["amount"]) for entry in entries] == [
        ("charge", "held", "spent", "2.10"),
        ("hold", "available", "held", "2.10"),
    ]


async def test_the_ledger_has_pages_and_shows_only_ones_own(api, db, caller):
    stranger = await make.make_tenant(db)
    for who in (caller, stranger, caller, caller):
        await make.accept(db, who)

    first = (await api.get("/v1/ledger", params={"limit": 2})).json()
    second = (await api.get("/v1/ledger", params={"limit": 2, "cursor": first["next_cursor"]})).json()

    assert (len(first["data"]), len(second["data"]), second["next_cursor"]) == (2, 1, None)
    assert (await api.get("/v1/ledger", params={"kind": "charge"})).json()["data"] == []


async def test_every_model_can_be_listed_and_looked_at(api, caller):
    models = (await api.get("/v1/models")).json()["data"]

    assert len(models) == len(make.CATALOG.models)
    for model in models:
        shown = (await api.get(f"/v1/models/{model['id']}")).json()
        assert shown["input_schema"]["type"] == "object"
        assert make.CATALOG.known(model["id"]).faults(shown["example"]) == []


async def test_models_of_one_kind_can_be_listed(api, caller):
    models = (await api.get("/v1/models", params={"kind": "text-to-video"})).json()["data"]

    assert {model["kind"] for model in models} == {"text-to-video"}


async def test_an_unknown_model_is_told_with_what_was_probably_meant(api, caller):
    answer = await api.get("/v1/models/fal-ai/kling-video/o3/4k/text-to-vidio")

    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_model")
    assert make.O3 in answer.json()["detail"]
