"""Keys: made, rotated, revoked, limited, and what is remembered of them; the audit log that tells of it."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app import clock
from app.db import Database
from app.main import create_app
from app.settings import Settings
from app.tenants.audit import audit
from app.tenants.caller import Caller, Narrowing
from app.tenants.keys import digest
from app.tenants.known import REMEMBERED_S, RENEWED_S, Known
from tests import factories as make
from tests.conftest import client_of


@pytest.fixture
async def backend(api, db) -> Any:
    """A tenant's backend, which has a key that may do everything."""
    caller, key = await make.make_key(db)
    api.headers["Authorization"] = f"Bearer {key}"
    api.caller = caller
    return api


async def new_key(backend: Any, **wanted: Any) -> Any:
    answer = await backend.post("/v1/keys", json={"name": "app", "scopes": ["jobs:read"], **wanted})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def works(backend: Any, key: Any) -> Any:
    return (await backend.get("/v1/jobs", headers={"Authorization": f"Bearer {key['key']}"})).status_code


async def log(backend: Any, **query: Any) -> list[Any]:
    found: list[Any] = (await backend.get("/v1/admin/audit", params=query)).json()["data"]
    return found


async def test_a_key_is_shown_once_and_listed_without_its_secret(backend, db):
    made = await new_key(backend, requests_per_minute=7, expires_in_s=60)

    listed = (await backend.get("/v1/keys")).json()["data"][0]

    assert await works(backend, made) == 200
    assert listed == {name: value for name, value in made.items() if name != "key"}
    assert (listed["state"], listed["requests_per_minute"], listed["scopes"]) == ("works", 7, ["jobs:read"])
    async with db.session() as session:
        assert made["key"] not in str((await session.execute(text("SELECT * FROM api_keys"))).all())


async def test_keys_come_in_pages(backend):
    ids = [(await new_key(backend, name=f"k{number}"))["id"] for number in range(4)]

    first = (await backend.get("/v1/keys", params={"limit": 3})).json()
    rest = (await backend.get("/v1/keys", params={"cursor": first["next_cursor"]})).json()

    assert [key["id"] for key in first["data"] + rest["data"]][:4] == ids[::-1]
    assert rest["next_cursor"] is None


async def test_nobody_hands_on_a_scope_they_lack(backend, api):
    small = await new_key(backend, scopes=["keys:write", "jobs:read"])
    big = await new_key(backend, scopes=["admin"])
    headers = {"Authorization": f"Bearer {small['key']}"}

    made = await api.post("/v1/keys", json={"name": "x", "scopes": ["jobs:read", "admin"]}, headers=headers)
    rotated = await api.post(f"/v1/keys/{big['id']}/rotate", json={}, headers=headers)

    assert (made.status_code, rotated.status_code) == (403, 403)
    assert "admin" in made.json()["detail"]


async def test_a_rotated_key_works_until_the_overlap_ends(backend, db):
    old = await new_key(backend, requests_per_minute=9)

    new = (await backend.post(f"/v1/keys/{old['id']}/rotate", json={"overlap_s": 100})).json()
    again = await backend.post(f"/v1/keys/{old['id']}/rotate", json={})

    assert (new["name"], new["scopes"], new["requests_per_minute"], new["expires_at"]) == (
        "app",
        ["jobs:read"],
        9,
        None,
    )
    assert (await works(backend, old), await works(backend, new)) == (200, 200)
    assert (again.status_code, again.json()["code"]) == (409, "key_replaced")
    listed = {key["id"]: key for key in (await backend.get("/v1/keys")).json()["data"]}
    assert listed[old["id"]]["replaced_by"] == new["id"]
    async with db.session() as session:
        seconds = text("SELECT extract(epoch FROM expires_at - now()) FROM api_keys WHERE id = :id")
        assert 90 < await session.scalar(seconds, {"id": old["id"]}) <= 100


async def test_a_key_rotated_without_overlap_stops_at_once(backend):
    old = await new_key(backend)
    assert await works(backend, old) == 200

    await backend.post(f"/v1/keys/{old['id']}/rotate", json={"overlap_s": 0})

    assert await works(backend, old) == 401


async def test_rotations_at_once_make_one_key(backend):
    old = await new_key(backend)

    answers = await asyncio.gather(*(backend.post(f"/v1/keys/{old['id']}/rotate", json={}) for _ in range(5)))

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]


async def test_a_revoked_key_stops_here_at_once_and_elsewhere_in_seconds(backend, db, database_url):
    key = await new_key(backend)
    other_app = create_app(Settings.read(database_url=database_url, fal_key="test", _env_file=None))
    async with other_app.router.lifespan_context(other_app), client_of(other_app) as other:
        known = other_app.state.known
        now_s = known._now()
        known._now = lambda: now_s
        assert (await works(backend, key), await works(other, key)) == (200, 200)

        assert (await backend.delete(f"/v1/keys/{key['id']}")).status_code == 204
        assert await works(backend, key) == 401

        # The other process remembers it for a moment more, and no longer.
        assert await works(other, key) == 200
        known._now = lambda: now_s + REMEMBERED_S
        assert await works(other, key) == 401
    assert REMEMBERED_S <= 5


async def test_another_tenants_keys_are_not_there(backend, db):
    theirs, _ = await make.make_key(db)

    answers = [
        await backend.delete(f"/v1/keys/{theirs.key_id}"),
        await backend.post(f"/v1/keys/{theirs.key_id}/rotate", json={}),
    ]

    assert [answer.status_code for answer in answers] == [404, 404]


async def test_a_caller_is_remembered_but_never_past_its_end(monkeypatch):
    now, at = [0.0], clock.now()
    monkeypatch.setattr(clock, "now", lambda: at)
    known = Known(per_key=None, per_token=1, failures=1, now=lambda: now[0])
    caller = Caller(UUID(int=1), UUID(int=2), frozenset(), expires_at=at + timedelta(seconds=1))

    known.remember(b"k", caller)

    assert known.look(b"k") == caller
    now[0] = 1.1
    assert known.look(b"k") is None


def test_only_a_key_in_use_is_renewed_and_only_shortly_before_its_end():
    now = [0.0]
    known = Known(per_key=None, per_token=1, failures=1, now=lambda: now[0])
    caller = Caller(UUID(int=1), UUID(int=2), frozenset())
    for each in (b"idle", b"used"):
        known.remember(each, caller)
    known.remember(b"token", replace(caller, token=Narrowing(UUID(int=3), "user", frozenset())))
    for each in (b"used", b"token"):
        known.look(each)

    now[0] = REMEMBERED_S - RENEWED_S - 0.1
    early = known.lapsing()
    now[0] += 0.2
    soon = known.lapsing()
    known.remember(b"used", caller)
    renewed = known.lapsing()
    now[0] = REMEMBERED_S
    assert (early, soon, renewed, known.look(b"used"), known.look(b"idle")) == ([], [b"used"], [], caller, None)


async def test_a_key_in_use_is_looked_up_along_with_another_and_found_to_be_revoked(backend, db):
    known = backend._transport.app.state.known
    at_s = known._now()
    known._now = lambda: at_s
    kept, revoked, third = [await new_key(backend) for _ in range(3)]
    assert [await works(backend, each) for each in (kept, revoked, kept, revoked)] == [200] * 4
    # As another process would.
    async with db.session() as session:
        await session.execute(text(f"UPDATE api_keys SET revoked_at = now() WHERE id = '{revoked['id']}'"))

    known._now = lambda: at_s + REMEMBERED_S - RENEWED_S / 2
    assert await works(backend, third) == 200

    assert [await works(backend, each) for each in (kept, revoked)] == [200, 401]
    known._now = lambda: at_s + REMEMBERED_S + RENEWED_S
    assert known.look(digest(kept["key"])) is not None


@pytest.mark.parametrize("which", ["renewed", "looked up"])
async def test_a_key_that_is_revoked_here_while_it_is_asked_for_stays_forgotten(backend, db, monkeypatch, which):
    known = backend._transport.app.state.known
    at_s, run_one = known._now(), Database.run_one
    known._now = lambda: at_s
    used, third = [await new_key(backend) for _ in range(2)]
    assert [await works(backend, used) for _ in range(2)] == [200, 200]
    revoked = used if which == "renewed" else third

    async def revoked_meanwhile(self, work):
        found = await run_one(self, work)
        known.forget(UUID(revoked["id"]))
        return found

    monkeypatch.setattr(Database, "run_one", revoked_meanwhile)
    known._now = lambda: at_s + REMEMBERED_S - RENEWED_S / 2
    assert await works(backend, third) == 200

    assert known.look(digest(revoked["key"])) is None


async def test_a_remembered_key_asks_the_database_nothing(backend, monkeypatch):
    known = backend._transport.app.state.known
    now_s = known._now()
    known._now = lambda: now_s
    await backend.get("/v1/models")
    for way in ("session", "run_one"):
        monkeypatch.setattr(Database, way, None)  # whoever asked now would fail

    assert (await backend.get("/v1/models")).status_code == 200


async def test_last_use_is_written_later_and_at_most_once_a_minute(backend, db):
    known = backend._transport.app.state.known
    await backend.get("/v1/jobs")
    last = text("SELECT last_used_at FROM api_keys")
    async with db.session() as session:
        assert await session.scalar(last) is None

    await known.note_use(db)
    async with db.session() as session:
        first = await session.scalar(last)
    await backend.get("/v1/jobs")
    await known.note_use(db)

    async with db.session() as session:
        assert await session.scalar(last) == first is not None


async def test_the_use_of_many_keys_is_written_and_nobody_is_waited_for(db, monkeypatch):
    monkeypatch.setattr("app.tenants.known.WRITTEN_AT_ONCE", 2)
    known = Known(per_key=None, per_token=1, failures=1)
    held, unused, *used = [await make.make_tenant(db) for _ in range(7)]
    for caller in (held, *used):
        known.asked(caller)

    async with db.session() as session:
        await session.execute(text("SELECT FROM api_keys WHERE id = :id FOR UPDATE"), {"id": held.key_id})
        async with asyncio.timeout(5):
            await known.note_use(db)
    async with db.session() as session:
        unnoted = set(await session.scalars(text("SELECT id FROM api_keys WHERE last_used_at IS NULL")))

    assert unnoted == {held.key_id, unused.key_id}


async def test_a_key_has_its_own_limit_and_hears_of_it(backend):
    key = await new_key(backend, requests_per_minute=2)
    asked = backend._transport.app.state.known._asked
    now_s = asked._now()
    asked._now = lambda: now_s

    answers = [await backend.get("/v1/jobs", headers={"Authorization": f"Bearer {key['key']}"}) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["ratelimit"] for answer in answers][:2] == ['"requests";r=1;t=30', '"requests";r=0;t=60']
    assert answers[0].headers["ratelimit-policy"] == '"requests";q=2;w=60'
    refused = answers[2]
    assert (refused.json()["code"], refused.headers["content-type"]) == (
        "too_many_requests",
        "application/problem+json",
    )
    assert refused.headers["retry-after"] == "30"
    unlimited = await backend.get("/v1/jobs")
    assert (unlimited.status_code, "ratelimit" in unlimited.headers) == (200, False)


async def test_wrong_keys_are_slowed_down_and_right_ones_are_not(backend):
    wrong = {"Authorization": "Bearer cs_wrong"}
    failed = backend._transport.app.state.known._failed
    now_s = failed._now()
    failed._now = lambda: now_s

    answers = [await backend.get("/v1/jobs", headers=wrong) for _ in range(62)]

    assert [answer.status_code for answer in answers] == [401] * 60 + [429] * 2
    assert answers[-1].headers["retry-after"] == "1"
    assert (await backend.get("/v1/jobs")).status_code == 200


async def test_the_audit_log_tells_who_did_what_and_no_secrets(backend):
    key = await new_key(backend, name="app")
    new = (await backend.post(f"/v1/keys/{key['id']}/rotate", json={"overlap_s": 5})).json()
    await backend.delete(f"/v1/keys/{new['id']}")
    await backend.delete(f"/v1/keys/{new['id']}")
    order = {"model": make.O3, "input": {"prompt": "a mecha lands", "duration": "5"}}
    job = (await backend.post("/v1/jobs", json=order)).json()
    await backend.post(f"/v1/jobs/{job['id']}/cancel")
    await backend.post(f"/v1/jobs/{job['id']}/cancel")

    entries = await log(backend)

    assert [(entry["action"], entry["subject"]) for entry in entries] == [
        ("job.cancel", job["id"]),
        ("key.revoke", new["id"]),
        ("key.rotate", key["id"]),
        ("key.create", key["id"]),
    ]
    assert {entry["actor"] for entry in entries} == {f"key:{backend.caller.key_id}"}
    assert key["key"] not in str(entries)
    assert "mecha" not in str(entries)
    assert await log(backend, tenant_id=str(UUID(int=7))) == []


async def test_the_audit_log_comes_in_pages_and_is_for_admins(backend, db):
    for number in range(3):
        await db.run(lambda session, number=number: _note(session, number))
    first = (await backend.get("/v1/admin/audit", params={"limit": 2})).json()
    rest = (await backend.get("/v1/admin/audit", params={"cursor": first["next_cursor"]})).json()
    small = await new_key(backend, scopes=["keys:write"])

    refused = await backend.get("/v1/admin/audit", headers={"Authorization": f"Bearer {small['key']}"})

    assert [entry["subject"] for entry in first["data"] + rest["data"]] == ["2", "1", "0"]
    assert refused.status_code == 403


async def _note(session: Any, number: int) -> None:
    audit(session, "cli:me", "thing.change", number, size=1)


async def test_what_is_rolled_back_was_not_done(db, backend):
    async def fail(session: Any) -> None:
        await _note(session, 1)
        await session.flush()
        raise KeyError

    with pytest.raises(KeyError):
        await db.run(fail)

    assert await log(backend) == []
