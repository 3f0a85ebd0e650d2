"""What the lifecycle's functions do to a job, its money and its events."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from functools import partial

import pytest
from sqlalchemy import CheckConstraint, text, update

from app import clock
from app.billing.ledger import InsufficientFunds
from app.db import Base
from app.fal.messages import Outcome, Progress, Refused
from app.jobs import intake, lifecycle, queries, tokens
from app.jobs.intake import IdempotencyConflict
from app.jobs.lifecycle import Applied
from app.jobs.states import JobStatus, Priority
from app.jobs.tables import Job
from tests import factories as make
from tests.databases import done_or_blocked

REFUSED = {"code": "fal_429", "title": "Busy", "detail": None, "retryable": True}


async def test_accepting_holds_the_price_and_notes_the_first_event(db):
    caller = await make.make_tenant(db)

    job = await make.accept(db, caller)

    assert (job.status, job.quoted, job.seconds) == ("queued", Decimal("2.10"), Decimal(5))
    assert await make.balances(db, caller) == (Decimal("-2.10"), Decimal("2.10"), Decimal(0))
    assert await make.events_of(db, job) == [(1, "queued")]


async def test_an_order_above_the_credit_limit_leaves_nothing_behind(db):
    caller = await make.make_tenant(db, credit_limit="2.09")

    with pytest.raises(InsufficientFunds):
        await make.accept(db, caller)

    assert await make.entries_of(db, caller) == []
    assert await make.take(db) == []


async def test_a_burst_of_orders_cannot_walk_past_the_credit_limit(db):
    caller = await make.make_tenant(db, credit_limit="6.30")

    outcomes = await asyncio.gather(*(make.accept(db, caller) for _ in range(12)), return_exceptions=True)

    assert sum(isinstance(outcome, Job) for outcome in outcomes) == 3
    assert sum(isinstance(outcome, InsufficientFunds) for outcome in outcomes) == 9
    assert await make.balances(db, caller) == (Decimal("-6.30"), Decimal("6.30"), Decimal(0))


async def test_one_key_from_fifty_callers_makes_one_job_and_one_hold(db):
    caller = await make.make_tenant(db)
    order = make.an_order(idempotency_key="once")

    jobs = await asyncio.gather(*(make.accept(db, caller, order) for _ in range(50)))

    assert len({job.id for job in jobs}) == 1
    assert await make.entries_of(db, caller) == [("hold", Decimal("2.10"))]


async def test_one_key_with_another_order_is_a_conflict(db):
    caller = await make.make_tenant(db)
    await make.accept(db, caller, make.an_order(idempotency_key="once"))

    with pytest.raises(IdempotencyConflict):
        await make.accept(db, caller, make.an_order(idempotency_key="once", digest=b"1" * 32))

    assert len(await make.entries_of(db, caller)) == 1


async def test_two_tenants_may_use_the_same_key(db):
    first, second = await make.make_tenant(db), await make.make_tenant(db)

    one = await make.accept(db, first, make.an_order(idempotency_key="once"))
    other = await make.accept(db, second, make.an_order(idempotency_key="once"))

    assert one.id != other.id


async def test_two_workers_never_take_the_same_job(db):
    caller = await make.make_tenant(db)
    jobs = [await make.accept(db, caller) for _ in range(20)]

    taken = await asyncio.gather(*(make.take(db, limit=10) for _ in range(4)))

    ids = [intent.job.id for batch in taken for intent in batch]
    assert sorted(ids) == sorted(job.id for job in jobs)


async def test_taking_writes_the_attempt_down_first(db):
    intent = await make.taken(db, await make.make_tenant(db))

    (attempt,) = await make.attempts_of(db, intent.job)
    assert (attempt.status, attempt.number) == ("submitting", 1)
    assert attempt.token_digest == tokens.token_digest(intent.token)
    assert tokens.key_of(intent.token) == make.key_of(intent)


async def test_a_job_waits_for_its_time(db):
    caller = await make.make_tenant(db)

    await make.accept(db, caller, make.an_order(run_after=clock.now() + timedelta(hours=1)))

    assert await make.take(db) == []


async def test_success_charges_what_was_quoted(db):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)
    await make.submit(db, intent)

    assert await make.report(db, intent, make.success()) is Applied.SETTLED

    job = await make.look(db, intent.job)
    assert (job.status, job.charged, job.output) == ("succeeded", Decimal("2.10"), make.OUTPUT)
    assert job.due_at is None
    assert await make.balances(db, caller) == (Decimal("-2.10"), Decimal(0), Decimal("2.10"))
    assert [status for _, status in await make.events_of(db, job)] == ["queued", "submitting", "submitted", "succeeded"]


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.CANCELED, Outcome.EXPIRED])
async def test_any_other_end_gives_everything_back(db, outcome):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)
    await make.submit(db, intent)

    await make.report(db, intent, make.failure(outcome=outcome))

    job = await make.look(db, intent.job)
    assert (job.status, job.charged, job.output) == (outcome, Decimal(0), None)
    assert job.error is not None
    assert await make.balances(db, caller) == (Decimal(0), Decimal(0), Decimal(0))


async def test_second_report_of_a_result_moves_no_money(db):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)
    await make.submit(db, intent)

    outcomes = await asyncio.gather(*(make.report(db, intent, make.success()) for _ in range(20)))

    assert sorted(outcomes) == [Applied.ALREADY_ENDED] * 19 + [Applied.SETTLED]
    assert await make.entries_of(db, caller) == [("hold", Decimal("2.10")), ("charge", Decimal("2.10"))]


@pytest.mark.parametrize(("first", "second"), [("success", "failure"), ("failure", "success")])
async def test_the_first_verdict_stands(db, first, second):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)
    await make.submit(db, intent)
    await make.report(db, intent, getattr(make, first)())
    before = await make.look(db, intent.job)

    assert await make.report(db, intent, getattr(make, second)()) is Applied.ALREADY_ENDED

    after = await make.look(db, intent.job)
    assert (after.status, after.charged, after.event_count) == (before.status, before.charged, before.event_count)
    await make.assert_adds_up(db, caller)


async def test_a_verdict_may_overtake_the_submit_answer(db):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)

    await make.report(db, intent, make.success())
    await make.submit(db, intent)

    job = await make.look(db, intent.job)
    (attempt,) = await make.attempts_of(db, job)
    assert (job.status, job.fal_request_id, attempt.status) == ("succeeded", "req-1", "submitted")
    assert attempt.status_url is not None
    assert job.submitted_at is not None
    assert await make.entries_of(db, caller) == [("hold", Decimal("2.10")), ("charge", Decimal("2.10"))]


async def test_a_verdict_on_another_request_changes_nothing(db):
    intent = await make.taken(db, await make.make_tenant(db))
    await make.submit(db, intent, "req-1")

    assert await make.report(db, intent, make.success("req-2")) is Applied.OTHER_REQUEST

    assert (await make.look(db, intent.job)).status == "submitted"


async def test_a_lost_answer_keeps_the_hold_and_sends_nothing_again(db):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)

    await db.run(partial(lifecycle.lost, key=make.key_of(intent), why="ReadTimeout"))
    await make.let_time_pass(db)

    job = await make.look(db, intent.job)
    assert job.status == "submit_unknown"
    assert await make.balances(db, caller) == (Decimal("-2.10"), Decimal("2.10"), Decimal(0))
    assert await make.take(db) == []


async def test_a_verdict_settles_a_lost_answer(db):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)
    await db.run(partial(lifecycle.lost, key=make.key_of(intent), why="ReadTimeout"))

    assert await make.report(db, intent, make.success()) is Applied.SETTLED

    assert (await make.look(db, intent.job)).fal_request_id == "req-1"
    await make.assert_adds_up(db, caller)


async def test_an_answer_that_comes_after_all_settles_a_lost_one(db):
    intent = await make.taken(db, await make.make_tenant(db))
    await db.run(partial(lifecycle.lost, key=make.key_of(intent), why="the worker was interrupted"))

    await make.submit(db, intent)

    assert (await make.look(db, intent.job)).status == "submitted"


async def test_a_proven_refusal_is_sent_again_as_a_new_attempt(db):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)

    refusal = Refused(429, "fal", REFUSED)
    await db.run(partial(lifecycle.refused, key=make.key_of(intent), answer=refusal, wait_s=30))
    waiting = await make.look(db, intent.job)
    assert (waiting.status, waiting.waiting_for, await make.take(db)) == ("queued", "fal", [])
    await make.let_time_pass(db)
    (again,) = await make.take(db)

    assert (again.attempt.number, again.token == intent.token) == (2, False)
    assert [attempt.status for attempt in await make.attempts_of(db, again.job)] == ["refused", "submitting"]
    assert await make.balances(db, caller) == (Decimal("-2.10"), Decimal("2.10"), Decimal(0))


async def test_a_final_refusal_fails_the_job_and_gives_everything_back(db):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)

    refusal = Refused(404, "fal", {**REFUSED, "code": "fal_404"}, final=True)
    await db.run(partial(lifecycle.refused, key=make.key_of(intent), answer=refusal, wait_s=30))

    job = await make.look(db, intent.job)
    assert (job.status, job.error and job.error["code"]) == ("failed", "fal_404")
    assert await make.balances(db, caller) == (Decimal(0), Decimal(0), Decimal(0))


async def test_a_refusal_never_unmakes_fals_own_word(db):
    intent = await make.taken(db, await make.make_tenant(db))
    await make.submit(db, intent)

    refusal = Refused(429, "fal", REFUSED)
    await db.run(partial(lifecycle.refused, key=make.key_of(intent), answer=refusal, wait_s=0))

    assert (await make.look(db, intent.job)).status == "submitted"
    assert await make.take(db) == []


async def test_a_verdict_on_an_attempt_that_looked_refused_still_counts(db):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller)
    refusal = Refused(None, "fal", REFUSED)
    await db.run(partial(lifecycle.refused, key=make.key_of(intent), answer=refusal, wait_s=30))

    assert await make.report(db, intent, make.success()) is Applied.SETTLED

    await make.let_time_pass(db)
    assert await make.take(db) == []
    await make.assert_adds_up(db, caller)


async def test_an_ending_to_be_read_on_an_attempt_that_looked_refused_is_asked_about(db):
    intent = await make.taken(db, await make.make_tenant(db))
    refusal = Refused(429, "fal", REFUSED)
    await db.run(partial(lifecycle.refused, key=make.key_of(intent), answer=refusal, wait_s=30))

    await db.run(partial(lifecycle.to_be_read, key=make.key_of(intent), request_id="req-1"))

    job = await make.look(db, intent.job)
    found = await db.run(partial(queries.attempts_at_fal, jobs=[job]))
    assert (job.status, found[job.id].fal_request_id) == ("submitted", "req-1")


async def test_a_question_under_way_does_not_put_off_what_is_to_be_read_at_once(db):
    intent = await make.taken(db, await make.make_tenant(db))
    await make.submit(db, intent)
    asking = await make.look(db, intent.job)
    await db.run(partial(lifecycle.to_be_read, key=make.key_of(intent), request_id="req-1"))

    await db.run(partial(lifecycle.progressed, job=asking, progress=Progress(running=True), ask_s=300))

    now = await make.look(db, intent.job)
    assert now.due_at is not None
    assert now.due_at <= clock.now() + timedelta(seconds=1)


async def test_what_matters_more_is_sent_first(db):
    caller = await make.make_tenant(db)
    for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH):
        await make.accept(db, caller, make.an_order(priority=priority))

    taken = [(await make.take(db))[0].job.priority for _ in range(3)]

    assert taken == [Priority.HIGH, Priority.NORMAL, Priority.LOW]


async def test_progress_moves_a_job_on_and_back(db):
    intent = await make.taken(db, await make.make_tenant(db))
    await make.submit(db, intent)

    for progress, status in [
        (Progress(running=False, queue_position=3), "submitted"),
        (Progress(running=True), "in_progress"),
        (Progress(running=False, queue_position=1), "submitted"),
    ]:
        job = await make.look(db, intent.job)
        await db.run(partial(lifecycle.progressed, job=job, progress=progress, ask_s=5))
        now = await make.look(db, intent.job)
        assert (now.status, now.queue_position) == (status, progress.queue_position)


async def test_progress_from_a_worker_that_lost_its_lease_is_ignored(db):
    intent = await make.taken(db, await make.make_tenant(db))
    await make.submit(db, intent)
    stale = await make.look(db, intent.job)
    async with db.session() as session:
        await session.execute(update(Job).values(lease_token=Job.lease_token + 1))

    await db.run(partial(lifecycle.progressed, job=stale, progress=Progress(running=True), ask_s=5))

    assert (await make.look(db, intent.job)).status == "submitted"


async def test_a_deadline_that_passes_in_the_queue_ends_the_job_for_free(db):
    caller = await make.make_tenant(db)
    job = await make.accept(db, caller, make.an_order(deadline_s=0.000001))

    assert await make.take(db) == []
    assert await db.run(partial(intake.expire, limit=10)) == 1

    assert (await make.look(db, job)).status == "expired"
    assert await make.balances(db, caller) == (Decimal(0), Decimal(0), Decimal(0))


async def test_deadlines_that_pass_together_lock_accounts_in_the_order_in_which_sets_do(db):
    first, last = sorted([await make.make_tenant(db) for _ in range(2)], key=lambda caller: caller.tenant_id)
    for caller in (last, first):
        await make.accept(db, caller, make.an_order(deadline_s=0.000001))
    lock = "SELECT FROM accounts WHERE tenant_id = :id FOR UPDATE NOWAIT"

    async with db.session() as set_:
        await set_.execute(text(lock), {"id": first.tenant_id})
        expiring = asyncio.create_task(db.run(partial(intake.expire, limit=10)))
        await done_or_blocked(db, expiring)
        # As a set would that had both.
        await set_.execute(text(lock), {"id": last.tenant_id})

    assert await expiring == 2


@pytest.mark.parametrize(
    ("measured", "charged"),
    [("7.5", "1.26"), ("1", "0.504"), ("99", "1.6884"), ("0", "1.6884"), (None, "1.6884")],
)
async def test_where_a_maximum_was_held_the_real_length_is_charged_and_the_rest_given_back(db, measured, charged):
    caller = await make.make_tenant(db)
    intent = await make.taken(db, caller, make.an_order(make.EDIT))
    await make.submit(db, intent)

    await make.report(db, intent, make.success(), Decimal(measured) if measured else None)

    job = await make.look(db, intent.job)
    assert (job.quoted, job.charged) == (Decimal("1.6884"), Decimal(charged))
    assert await make.balances(db, caller) == (-Decimal(charged), Decimal(0), Decimal(charged))
    await make.assert_adds_up(db, caller)


async def test_a_measured_length_never_changes_a_price_that_was_fixed(db):
    intent = await make.taken(db, await make.make_tenant(db))
    await make.submit(db, intent)

    await make.report(db, intent, make.success(), Decimal("5.042"))

    assert (await make.look(db, intent.job)).charged == Decimal("2.10")


async def test_an_ending_without_its_story_is_left_to_be_read_at_once(db):
    intent = await make.taken(db, await make.make_tenant(db))

    applied = await db.run(partial(lifecycle.to_be_read, key=make.key_of(intent), request_id="req-1"))

    job = await make.look(db, intent.job)
    assert (applied, job.status, job.fal_request_id) == (Applied.TO_BE_READ, "submitted", "req-1")
    assert job.due_at is not None


def test_statuses_are_what_the_constraints_know():
    table = Base.metadata.tables["jobs"]
    (known,) = [check for check in table.constraints if str(check.name).endswith("status_known")]
    assert isinstance(known, CheckConstraint)
    assert all(f"'{status}'" in str(known.sqltext) for status in JobStatus)


@pytest.mark.parametrize("token", ["", "x", "é", "A" * 64, "A" * 60, "!" * 88, "A" * 200])
def test_a_strange_token_is_nobodys(token):
    found = tokens.key_of(token)
    # As long as tokens were that named their tenant alone, it names no attempt.
    assert found is None or (len(token), found[1]) == (64, None)
