"""GET /v1/admin/verify."""

import pytest

from app.main import create_app
from app.settings import Settings
from app.tenants.keys import Scope
from tests import factories as make
from tests.conftest import client_of


@pytest.fixture
async def caller(api, db):
    caller, key = await make.make_key(db)
    api.headers["Authorization"] = f"Bearer {key}"
    return caller


async def test_it_says_that_every_promise_holds(api, db, caller):
    intent = await make.taken(db, caller)
    await make.submit(db, intent)
    await make.report(db, intent, make.success())

    answer = await api.get("/v1/admin/verify")

    told = answer.json()
    assert answer.status_code == 200
    assert (told["ok"], told["findings"]) == (True, [])
    assert (told["checked"]["jobs"], told["checked"]["entries"], told["checked"]["events"]) == (1, 2, 4)
    assert told["checked"]["requests_at_fal"] is None


async def test_it_names_what_needs_a_decision(api, db, caller):
    intent = await make.taken(db, caller)

    told = (await api.get("/v1/admin/verify", params={"overdue_s": 60})).json()

    assert told["ok"]
    assert (told["checked"]["unfinished"], told["checked"]["attempts"]) == (1, 1)
    assert str(intent.job.id) not in str(told)


async def test_only_a_key_with_the_scope_may_ask(api, db):
    scopes = [scope for scope in Scope if scope is not Scope.ADMIN]
    _, key = await make.make_key(db, scopes=scopes)

    answer = await api.get("/v1/admin/verify", headers={"Authorization": f"Bearer {key}"})

    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert (await api.get("/v1/admin/verify")).status_code == 401


@pytest.mark.parametrize("overdue_s", ["0", "-1", "soon", "inf"])
async def test_a_time_that_is_none_is_refused(api, caller, overdue_s):
    assert (await api.get("/v1/admin/verify", params={"overdue_s": overdue_s})).status_code == 422


async def test_it_is_done_one_at_a_time(db, database_url, caller, api):
    key = api.headers["Authorization"]
    app = create_app(Settings.read(database_url=database_url, fal_key="test", _env_file=None))
    async with app.router.lifespan_context(app), client_of(app) as client, app.state.proving:
        answer = await client.get("/v1/admin/verify", headers={"Authorization": key})

        assert (answer.status_code, answer.json()["code"]) == (409, "verify_running")
        assert int(answer.headers["Retry-After"]) > 0
    assert (await api.get("/v1/admin/verify")).status_code == 200
