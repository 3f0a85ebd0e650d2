"""GET /v1/admin/incidents, POST /v1/admin/incidents/{id}/dismiss."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func

from app import clock
from app.chores import Chore
from app.incidents.tables import Incident
from app.tenants.keys import Scope
from tests import factories as make

WHERE = "/v1/admin/incidents"


@pytest.fixture
async def caller(api, db):
    caller, key = await make.make_key(db)
    api.headers["Authorization"] = f"Bearer {key}"
    return caller


async def add(db, *incidents):
    """Incidents, as a watcher would have opened them."""
    now = clock.now()
    rows = [
        Incident(
            **{
                "kind": "overdue",
                "since": now - timedelta(hours=3),
                "until": now,
                "jobs": 1,
                "amount": 2,
                "detail": {"jobs": [], "at_least": False},
                **values,
            }
        )
        for values in incidents
    ]
    async with db.session() as session:
        session.add_all(rows)
    return [str(row.id) for row in rows]


def ids(answer):
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()["data"]]


async def test_it_tells_since_when_how_much_and_what_to_do(api, db, caller):
    job_id = str(uuid4())
    await add(db, {"kind": "overdue", "jobs": 3, "amount": "6.3", "detail": {"jobs": [job_id], "at_least": False}})

    (told,) = (await api.get(WHERE)).json()["data"]

    assert (told["kind"], told["jobs"], told["amount"], told["detail"]["jobs"]) == ("overdue", 3, "6.30", [job_id])
    assert (told["closed_at"], told["dismissed"]) == (None, None)
    assert "callsheet jobs show" in told["todo"]


async def test_open_ones_come_first_and_pages_neither_repeat_nor_skip(api, db, caller):
    over = {"closed_at": func.now()}
    made = await add(db, *({"subject": str(n), **(over if n % 2 else {})} for n in range(7)))
    wanted = [made[n] for n in (6, 4, 2, 0, 5, 3, 1)]

    for limit in (1, 2, 3, 4, 7):
        seen, cursor = [], None
        while True:
            answer = await api.get(WHERE, params={"limit": limit, **({"cursor": cursor} if cursor else {})})
            seen += ids(answer)
            cursor = answer.json()["next_cursor"]
            if cursor is None:
                break
        assert seen == wanted


async def test_it_filters_by_kind_and_by_being_open(api, db, caller):
    over = {"closed_at": func.now()}
    a, b, c = await add(db, {"kind": "hanging"}, {"kind": "overdue"}, {"kind": "overdue", "subject": "x", **over})

    assert ids(await api.get(WHERE, params={"kind": "hanging"})) == [a]
    assert ids(await api.get(WHERE, params={"kind": "overdue"})) == [b, c]
    assert ids(await api.get(WHERE, params={"open": True})) == [b, a]
    assert ids(await api.get(WHERE, params={"open": False, "kind": "overdue"})) == [c]


async def test_it_says_whether_somebody_watches(api, db, caller):
    nobody = (await api.get(WHERE)).json()
    async with db.session() as session:
        session.add(Chore(name="watch", done_at=func.now(), result={"blind": ["overdue"]}))

    somebody = (await api.get(WHERE)).json()

    assert (nobody["watching"], nobody["watched_at"], nobody["blind"]) == (False, None, [])
    assert (somebody["watching"], somebody["blind"]) == (True, ["overdue"])


async def test_dismissing_keeps_who_and_why(api, db, caller):
    (incident_id,) = await add(db, {})

    first = await api.post(f"{WHERE}/{incident_id}/dismiss", json={"reason": " saved by hand "})
    again = await api.post(f"{WHERE}/{incident_id}/dismiss", json={"reason": "another"})

    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()
    dismissed = first.json()["dismissed"]
    assert (dismissed["reason"], dismissed["by"]) == ("saved by hand", f"key {caller.key_id}")
    assert ids(await api.get(WHERE, params={"open": True})) == []


async def test_what_cannot_be_dismissed_says_why(api, db, caller):
    (over,) = await add(db, {"closed_at": func.now()})

    closed = await api.post(f"{WHERE}/{over}/dismiss", json={"reason": "x"})
    unknown = await api.post(f"{WHERE}/{UUID(int=0)}/dismiss", json={"reason": "x"})
    faulty = [await api.post(f"{WHERE}/{over}/dismiss", json={"reason": reason}) for reason in ("  ", "a\0b")]

    assert (closed.status_code, closed.json()["code"]) == (409, "incident_closed")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    for answer in faulty:
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/reason")


@pytest.mark.parametrize("cursor", ["x", "o", "oAAAA", "zAZoqAAAAcACAAAAAAAAAAA", "-"])
async def test_a_cursor_that_is_none_is_refused(api, caller, cursor):
    assert (await api.get(WHERE, params={"cursor": cursor})).status_code == 422


async def test_only_a_key_with_the_scope_may_look_or_dismiss(api, db):
    (incident_id,) = await add(db, {})
    _, key = await make.make_key(db, scopes=[scope for scope in Scope if scope is not Scope.ADMIN])
    theirs = {"Authorization": f"Bearer {key}"}

    for headers, status in ((theirs, 403), ({}, 401)):
        assert (await api.get(WHERE, headers=headers)).status_code == status
        post = await api.post(f"{WHERE}/{incident_id}/dismiss", json={"reason": "x"}, headers=headers)
        assert post.status_code == status


async def test_the_page_needs_nothing_from_elsewhere(api):
    page = await api.get("/incidents")

    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "://" not in page.text + policy
    for name in ("page.js", "page.css"):
        part = await api.get(f"/incidents/static/{name}")
        assert part.status_code == 200
        assert "://" not in part.text


async def test_a_kind_that_postgres_cannot_compare_with_is_refused(api, caller):
    answer = await api.get(WHERE, params={"kind": "over\x00due"})

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "kind")
