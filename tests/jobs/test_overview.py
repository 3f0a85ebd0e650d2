"""GET /v1/overview: how things are, whatever lies behind."""

import pytest

from app.jobs import overview
from tests import factories as make

PATH = "/v1/overview"


@pytest.fixture
async def caller(api, db):
    caller, key = await make.make_key(db)
    api.headers["Authorization"] = f"Bearer {key}"
    return caller


def counts(told):
    return {each["status"]: each["jobs"] for each in told["under_way"]}


async def test_a_new_tenant_sees_nothing_under_way(api, caller):
    told = (await api.get(PATH)).json()

    assert counts(told) == {"queued": 0, "submitting": 0, "submit_unknown": 0, "submitted": 0, "in_progress": 0}
    assert {each["oldest_at"] for each in told["under_way"]} == {None}
    assert told["latest"] == {"since": None, "jobs": {}}
    assert told["balance"]["held"] == "0.00"


async def test_it_counts_what_is_under_way_what_ended_and_the_money(api, db, caller):
    ended = await make.taken(db, caller)
    await make.submit(db, ended)
    await make.report(db, ended, make.success())
    at_fal = await make.taken(db, caller)
    await make.submit(db, at_fal, "req-2")
    oldest, _ = [await make.accept(db, caller) for _ in range(2)]

    told = (await api.get(PATH)).json()

    assert counts(told) == {"queued": 2, "submitting": 0, "submit_unknown": 0, "submitted": 1, "in_progress": 0}
    shown = (await api.get(f"/v1/jobs/{oldest.id}")).json()
    assert told["under_way"][0]["oldest_at"] == shown["created_at"]
    assert told["latest"]["jobs"] == {"succeeded": 1, "submitted": 1, "queued": 2}
    assert (told["balance"]["held"], told["balance"]["spent"]) == ("6.30", "2.10")
    assert told["balance"] == (await api.get("/v1/balance")).json()


async def test_only_the_latest_jobs_tell_how_it_goes_lately(api, db, caller, monkeypatch):
    monkeypatch.setattr(overview, "LATEST", 2)
    gone = await make.taken(db, caller)
    await make.submit(db, gone)
    await make.report(db, gone, make.success())
    since, _ = [await make.accept(db, caller) for _ in range(2)]

    told = (await api.get(PATH)).json()

    assert told["latest"]["jobs"] == {"queued": 2}
    assert told["latest"]["since"] == (await api.get(f"/v1/jobs/{since.id}")).json()["created_at"]


async def test_what_others_have_is_not_in_it(api, db, caller):
    other = await make.make_tenant(db)
    await make.accept(db, other)

    told = (await api.get(PATH)).json()

    assert set(counts(told).values()) == {0}
    assert told["latest"]["jobs"] == {}


async def test_money_is_for_keys_that_may_see_it(api, db, caller):
    _, key = await make.make_key(db, scopes=["jobs:read"])

    told = (await api.get(PATH, headers={"Authorization": f"Bearer {key}"})).json()

    assert told["balance"] is None
