"""Recognising a lost submit in fal's history: by endpoint, time and exact input, and only without doubt."""

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import clock
from app.db import Database
from app.fal.messages import Sent
from app.jobs import history, lifecycle
from app.jobs.history import Lost
from app.jobs.tables import Attempt, Job
from app.jobs.taking import Intent
from tests import factories as make

INPUT = {"prompt": "a mecha lands", "duration": "5"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
INPUTS = st.dictionaries(st.text(), JSON, max_size=4)


async def lost(db: Database, **order: Any) -> Intent:
    """A job of a new tenant, its submit's answer lost."""
    intent = await make.taken(db, await make.make_tenant(db), make.an_order(**order))
    await db.run(partial(lifecycle.lost, key=make.key_of(intent), why="ReadTimeout"))
    return intent


def request(intent: Intent, name: str = "req-1", *, late: float = 0, **of_input: Any) -> Sent:
    return Sent(name, intent.attempt.created_at + timedelta(seconds=late), {**INPUT, **of_input})


async def recognise(db: Database, intent: Intent, sent: Sequence[Sent]) -> str | None:
    (attempt,) = await make.attempts_of(db, intent.job)
    job = await make.look(db, intent.job)
    return await db.run(partial(history.recognise, lost=Lost(job, attempt), sent=sent))


async def test_the_one_request_that_it_can_be_it_is(db):
    intent = await lost(db)
    others = [request(intent, "other", prompt="another"), request(intent, "old", late=-90)]

    assert await recognise(db, intent, [*others, request(intent)]) == "req-1"

    job = await make.look(db, intent.job)
    assert (job.status, job.fal_request_id) == ("submitted", "req-1")


@pytest.mark.parametrize(("moment", "late"), [("created_at", -61), ("answered_at", 61)])
async def test_a_request_of_another_time_is_another(db, moment, late):
    intent = await lost(db)
    (attempt,) = await make.attempts_of(db, intent.job)
    sent_at = getattr(attempt, moment) + timedelta(seconds=late)

    assert await recognise(db, intent, [Sent("req-1", sent_at, INPUT)]) is None


@pytest.mark.parametrize("change", [{"duration": 5}, {"seed": 1}, {"prompt": "A mecha lands"}])
async def test_a_request_with_almost_the_same_input_is_another(db, change):
    intent = await lost(db)

    assert await recognise(db, intent, [request(intent, **change)]) is None
    assert (await make.look(db, intent.job)).status == "submit_unknown"


async def test_between_two_equal_requests_nothing_is_decided(db):
    intent = await lost(db)

    assert await recognise(db, intent, [request(intent, "req-1"), request(intent, "req-2", late=1)]) is None


async def test_a_request_that_is_known_to_be_anothers_is_not_it(db):
    other = await make.taken(db, await make.make_tenant(db))
    await make.submit(db, other, "req-1")
    intent = await lost(db)

    assert await recognise(db, intent, [request(intent, "req-1")]) is None
    assert await recognise(db, intent, [request(intent, "req-1"), request(intent, "req-2")]) == "req-2"


async def test_an_attempt_that_is_just_being_sent_could_be_it_too(db):
    intent = await lost(db)
    await make.taken(db, await make.make_tenant(db))

    assert await recognise(db, intent, [request(intent)]) is None


async def test_two_lost_submits_of_different_tenants_never_claim_one_request(db):
    first, second = await lost(db), await lost(db)
    sent = [request(first)]

    claimed = await asyncio.gather(*(recognise(db, intent, sent) for intent in (first, second) * 5))

    assert set(claimed) == {None}
    assert {(await make.look(db, intent.job)).status for intent in (first, second)} == {"submit_unknown"}


async def test_once_one_of_two_is_known_the_other_is_recognised(db):
    first, second = await lost(db), await lost(db)
    await make.report(db, first, make.success("req-1"))

    assert await recognise(db, second, [request(first, "req-1"), request(second, "req-2")]) == "req-2"


async def test_asking_twice_at_once_recognises_once(db):
    intent = await lost(db)

    await asyncio.gather(*(recognise(db, intent, [request(intent)]) for _ in range(5)), return_exceptions=True)

    statuses = [status for _, status in await make.events_of(db, intent.job)]
    assert statuses == ["queued", "submitting", "submit_unknown", "submitted"]


@given(INPUTS, st.randoms(use_true_random=False))
def test_the_order_of_names_makes_no_difference(model_input, random):
    names = list(model_input)
    random.shuffle(names)

    assert alike(model_input, {name: model_input[name] for name in names})


@given(INPUTS, INPUTS)
def test_only_equal_inputs_are_alike(ours, theirs):
    same = json.dumps(ours, sort_keys=True) == json.dumps(theirs, sort_keys=True)

    assert alike(ours, theirs) == same


def alike(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    now = clock.now()
    lost, sent = Lost(Job(input=ours), Attempt(created_at=now, answered_at=now)), Sent("r", now, theirs)
    found = history.alike(lost, [sent])
    assert history.sought([lost])(sent) == bool(found)
    return bool(found)
