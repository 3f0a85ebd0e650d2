"""What people decide: to cancel a job, or what became of a lost submit."""

import asyncio
from collections.abc import Coroutine
from decimal import Decimal
from functools import partial
from random import Random
from typing import Any

import pytest
import structlog.testing

from app import clock
from app.db import Database
from app.fal.messages import CancelAnswer, Outcome, Refused
from app.jobs import decisions, lifecycle
from app.jobs.decisions import AlreadyFinished, Unresolvable
from app.jobs.lifecycle import Applied, JobKey
from app.jobs.tables import Job
from app.jobs.taking import Intent
from app.verify.verifier import verify
from tests import factories as make

NOTHING = (Decimal(0), Decimal(0), Decimal(0))
REFUSED = Refused(429, "fal", {"code": "fal_429", "title": "Busy", "detail": None, "retryable": True})


async def cancel(db: Database, job: Job) -> Job | None:
    return await db.run(partial(decisions.cancel, key=JobKey(job.tenant_id, job.id)))


async def lose(db: Database, intent: Intent) -> None:
    await db.run(partial(lifecycle.lost, key=make.key_of(intent), why="ReadTimeout"))


async def refuse(db: Database, intent: Intent) -> None:
    await db.run(partial(lifecycle.refused, key=make.key_of(intent), answer=REFUSED, wait_s=0))


async def not_accepted(db: Database, job: Job) -> None:
    await db.run(partial(decisions.resolve_not_accepted, job=job, reason="fal's support says so"))


async def accepted(db: Database, job: Job, request_id: str) -> None:
    await db.run(partial(decisions.resolve_accepted, job=job, request_id=request_id, reason=None))


async def test_a_job_that_was_never_sent_is_canceled_for_free(db):
    caller = await make.make_tenant(db)
    job = await make.accept(db, caller)

    await cancel(db, job)

    now = await make.look(db, job)
    assert (now.status, now.error and now.error["code"], now.charged) == ("canceled", "canceled", Decimal(0))
    assert now.cancel_requested_at is not None
    assert await make.balances(db, caller) == NOTHING
    assert await make.take(db) == []


async def test_a_cancel_of_what_fal_has_settles_nothing_and_is_due_at_once(db):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)
    await make.submit(db, intent)

    await cancel(db, intent.job)
    await cancel(db, intent.job)

    now = await make.look(db, intent.job)
    assert (now.status, now.charged) == ("submitted", None)
    assert now.cancel_requested_at is not None
    assert now.due_at is not None
    assert now.due_at <= clock.now()
    assert len(await make.events_of(db, intent.job)) == 4
    assert await make.entries_of(db, caller) == [("hold", Decimal("2.10"))]


async def test_a_cancel_leaves_a_submit_under_way_to_its_dispatcher_and_is_due_with_its_answer(db):
    intent = await make.taken(db, await make.make_tenant(db))
    before = await make.look(db, intent.job)

    await cancel(db, intent.job)
    submitting = await make.look(db, intent.job)
    await make.submit(db, intent)

    now = await make.look(db, intent.job)
    assert (submitting.status, submitting.due_at) == ("submitting", before.due_at)
    assert now.due_at is not None
    assert (now.status, now.due_at <= clock.now()) == ("submitted", True)


async def test_a_job_that_fal_refused_meanwhile_is_canceled_and_not_sent_again(db):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)

    await cancel(db, intent.job)
    await refuse(db, intent)

    assert (await make.look(db, intent.job)).status == "canceled"
    assert await make.balances(db, caller) == NOTHING
    assert await make.take(db) == []


@pytest.mark.parametrize("outcome", list(Outcome))
async def test_what_has_ended_is_not_canceled(db, outcome):
    intent = await make.taken(db, await make.make_tenant(db))
    await make.submit(db, intent)
    await make.report(db, intent, make.success() if outcome is Outcome.SUCCEEDED else make.failure(outcome=outcome))
    ended = await make.look(db, intent.job)

    if outcome is Outcome.CANCELED:
        await cancel(db, intent.job)
    else:
        with pytest.raises(AlreadyFinished):
            await cancel(db, intent.job)

    assert (await make.look(db, intent.job)).event_count == ended.event_count


async def test_another_tenants_job_is_not_there_to_be_canceled(db):
    job = await make.accept(db, await make.make_tenant(db))
    other = await make.make_tenant(db)

    assert await db.run(partial(decisions.cancel, key=JobKey(other.tenant_id, job.id))) is None

    assert (await make.look(db, job)).status == "queued"


async def test_fals_answer_to_a_cancel_is_noted_once_and_ends_nothing(db):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)
    await make.submit(db, intent)
    await cancel(db, intent.job)

    for answer in (CancelAnswer.GONE, CancelAnswer.TOO_LATE):
        await db.run(partial(decisions.cancel_answered, key=make.key_of(intent), answer=answer))

    (attempt,) = await make.attempts_of(db, intent.job)
    assert (attempt.cancel_answer, (await make.look(db, intent.job)).status) == ("OK", "submitted")
    assert await make.entries_of(db, caller) == [("hold", Decimal("2.10"))]


async def test_a_cancel_that_races_with_the_dispatcher_is_free_or_remembered(db):
    caller = await make.make_tenant(db)
    jobs = [await make.accept(db, caller) for _ in range(20)]

    await asyncio.gather(*(cancel(db, job) for job in jobs), *(make.take(db, limit=5) for _ in range(4)))

    for job in jobs:
        now = await make.look(db, job)
        assert now.cancel_requested_at is not None
        assert (now.status, now.attempts) in {("canceled", 0), ("submitting", 1)}
    await make.assert_adds_up(db, caller)


@pytest.mark.parametrize("verdict", [make.success(), make.failure(outcome=Outcome.CANCELED)])
async def test_cancels_that_race_with_the_verdict_resolve_the_hold_once(db, verdict):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)
    news: list[Any] = [make.submit(db, intent), *(make.report(db, intent, verdict) for _ in range(3))]

    await asyncio.gather(*news, *(cancel(db, intent.job) for _ in range(3)), return_exceptions=True)

    assert (await make.look(db, intent.job)).status == verdict.outcome
    assert len(await make.entries_of(db, caller)) == 2
    await make.assert_adds_up(db, caller)


async def test_an_operator_may_say_which_request_it_is(db):
    intent = await make.taken(db, await make.make_tenant(db))
    await lose(db, intent)

    await accepted(db, intent.job, "req-1")

    now = await make.look(db, intent.job)
    (attempt,) = await make.attempts_of(db, intent.job)
    assert (now.status, now.fal_request_id, attempt.status) == ("submitted", "req-1", "submitted")
    assert now.due_at is not None
    assert now.due_at <= clock.now()
    assert await make.report(db, intent, make.success("req-1")) is Applied.SETTLED


async def test_an_operator_may_say_that_fal_does_not_have_it_and_it_is_sent_again(db):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)
    await lose(db, intent)

    await not_accepted(db, intent.job)

    (again,) = await make.take(db)
    first, second = await make.attempts_of(db, again.job)
    assert (first.status, second.status, second.number) == ("refused", "submitting", 2)
    assert first.error is not None
    assert (first.error["code"], first.error["detail"]) == ("operator", "fal's support says so")
    assert await make.balances(db, caller) == (Decimal("-2.10"), Decimal("2.10"), Decimal(0))


async def test_a_job_that_shall_be_canceled_is_not_sent_again_on_an_operators_word(db):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)
    await lose(db, intent)
    await cancel(db, intent.job)

    await not_accepted(db, intent.job)

    assert (await make.look(db, intent.job)).status == "canceled"
    assert await make.balances(db, caller) == NOTHING


@pytest.mark.parametrize("how_far", ["queued", "taken", "submitted"])
async def test_fals_own_word_after_a_wrong_decision_counts_and_charges_once(db, how_far):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)
    await lose(db, intent)
    await not_accepted(db, intent.job)
    again = [] if how_far == "queued" else await make.take(db)
    if how_far == "submitted":
        await make.submit(db, again[0], "req-2")

    assert await make.report(db, intent, make.success("req-1")) is Applied.SETTLED
    for second in again:
        assert await make.report(db, second, make.success("req-2")) is Applied.ALREADY_ENDED

    assert (await make.look(db, intent.job)).fal_request_id == "req-1"
    assert await make.entries_of(db, caller) == [("hold", Decimal("2.10")), ("charge", Decimal("2.10"))]
    await make.assert_adds_up(db, caller)


@pytest.mark.parametrize("how_far", ["queued", "taken", "submitted"])
async def test_a_late_answer_after_a_wrong_decision_is_put_on_record_and_makes_no_second_live_attempt(db, how_far):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)
    await lose(db, intent)
    await not_accepted(db, intent.job)
    again = [] if how_far == "queued" else await make.take(db)
    if how_far == "submitted":
        await make.submit(db, again[0], "req-2")

    with structlog.testing.capture_logs() as logs:
        await make.submit(db, intent, "req-1")

    first, *second = await make.attempts_of(db, intent.job)
    job = await make.look(db, intent.job)
    expected = {
        "queued": ("submitted", "req-1", ["submitted"]),
        "taken": ("submitting", None, ["refused", "submitting"]),
        "submitted": ("submitted", "req-2", ["refused", "submitted"]),
    }
    statuses = [attempt.status for attempt in (first, *second)]
    assert (job.status, job.fal_request_id, statuses) == expected[how_far]
    assert first.fal_request_id == "req-1"
    assert [line["log_level"] for line in logs] == ["error"] * len(second)
    for number, attempt in enumerate(again, start=2):
        await make.submit(db, attempt, f"req-{number}")
        await make.report(db, attempt, make.success(f"req-{number}"))
    if not again:
        await make.report(db, intent, make.success("req-1"))
    assert await make.entries_of(db, caller) == [("hold", Decimal("2.10")), ("charge", Decimal("2.10"))]


async def test_that_a_wrong_decision_made_fal_take_a_job_twice_is_found_by_verify(db):
    intent = await make.taken(db, await make.make_tenant(db))
    await lose(db, intent)
    await not_accepted(db, intent.job)
    (again,) = await make.take(db)
    await make.submit(db, again, "req-2")
    await make.submit(db, intent, "req-1")

    found = (await verify(db)).findings

    assert [(finding.check.name, finding.examples) for finding in found] == [("one_request", [str(intent.job.id)])]


async def test_a_late_answer_that_races_with_sending_again_leaves_one_attempt_live(db):
    for number in range(10):
        intent = await make.taken(db, await make.make_tenant(db))
        await lose(db, intent)
        await not_accepted(db, intent.job)

        await asyncio.gather(make.submit(db, intent, f"req-{number}"), make.take(db))

        attempts = await make.attempts_of(db, intent.job)
        live = [attempt.number for attempt in attempts if attempt.status != "refused"]
        assert attempts[0].fal_request_id == f"req-{number}"
        assert len(live) == 1
        # What is under way must not be taken by the next round.
        for attempt in attempts[1:]:
            await make.submit(db, Intent(intent.job, attempt, ""), f"again-{number}")


async def test_only_a_lost_submit_needs_a_decision(db):
    caller = await make.make_tenant(db)
    queued = await make.accept(db, caller)
    intent = (await make.take(db))[0]
    await make.submit(db, intent)

    for decide in (not_accepted(db, queued), accepted(db, queued, "req-2")):
        with pytest.raises(Unresolvable):
            await decide

    assert (await make.look(db, queued)).status == "submitted"


async def test_a_request_that_is_known_to_be_anothers_can_not_be_claimed(db):
    other = await make.taken(db, await make.make_tenant(db))
    await make.submit(db, other, "req-1")
    intent = await make.taken(db, await make.make_tenant(db))
    await lose(db, intent)

    with pytest.raises(Unresolvable):
        await accepted(db, intent.job, "req-1")

    assert (await make.look(db, intent.job)).status == "submit_unknown"


@pytest.mark.parametrize("decide", [not_accepted, partial(accepted, request_id="req-1")])
async def test_a_decision_that_races_with_fals_own_word_charges_once(db, decide):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)
    await lose(db, intent)

    await asyncio.gather(decide(db, intent.job), make.report(db, intent, make.success("req-1")), return_exceptions=True)

    assert (await make.look(db, intent.job)).status == "succeeded"
    assert await make.entries_of(db, caller) == [("hold", Decimal("2.10")), ("charge", Decimal("2.10"))]
    await make.assert_adds_up(db, caller)


@pytest.mark.parametrize("seed", range(20))
async def test_no_order_of_news_and_decisions_charges_twice_or_sends_while_fal_may_have_it(db, seed):
    caller = await make.make_tenant(db)
    job = await make.accept(db, caller)
    random = Random(seed)
    sent: list[Intent] = []

    def step() -> Coroutine[Any, Any, Any]:
        news: list[Coroutine[Any, Any, Any]] = [cancel(db, job), not_accepted(db, job), accepted_as_sent()]
        for number, intent in enumerate(sent):
            name = f"req-{number}"
            verdict = random.choice([make.success(name), make.failure(name, Outcome.CANCELED)])
            news += [lose(db, intent), refuse(db, intent), make.submit(db, intent, name)]
            news.append(make.report(db, intent, verdict))
        return chosen_of(random, news)

    async def accepted_as_sent() -> None:
        lost = [attempt.number for attempt in await make.attempts_of(db, job) if attempt.status == "unknown"]
        await accepted(db, job, f"req-{lost[0] - 1}" if lost else "req-0")

    for _ in range(12):
        sent += await make.take(db)
        for outcome in await asyncio.gather(step(), step(), return_exceptions=True):
            allowed = AlreadyFinished | Unresolvable
            assert not isinstance(outcome, Exception) or isinstance(outcome, allowed), outcome
        live = [attempt for attempt in await make.attempts_of(db, job) if attempt.status != "refused"]
        assert len(live) <= 1

    now = await make.look(db, job)
    kinds = [kind for kind, _ in await make.entries_of(db, caller)]
    assert kinds == {"succeeded": ["hold", "charge"], "canceled": ["hold", "release"]}.get(now.status, ["hold"])
    await make.assert_adds_up(db, caller)


def chosen_of(random: Random, news: list[Coroutine[Any, Any, Any]]) -> Coroutine[Any, Any, Any]:
    """One of *news*; the others never happen."""
    chosen = random.choice(news)
    for other in news:
        if other is not chosen:
            other.close()
    return chosen
