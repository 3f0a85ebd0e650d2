"""
The checks notice what they are for: each scenario holds as the product is, and fails with one bug planted in it.

A plant is a bug that was made before, somewhere, by somebody who meant well.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from app.billing import ledger
from app.db import Database, ask_in
from app.fal.client import FalClient
from app.fal.messages import CancelAnswer, Lost, job_error
from app.fal.signature import Signed, Verifier
from app.jobs import decisions, lifecycle
from app.jobs.lifecycle import AttemptKey, JobKey
from app.jobs.states import JobStatus
from app.jobs.tables import Attempt
from app.verify.books import SimulatorBooks
from app.verify.verifier import verify
from tests import factories as make
from tests.databases import few_in
from tests.faults.frail import Fault, Frail, Moment, frail_api
from tests.faults.promises import check
from tests.world import World

FIRST = Fault(1, Moment.BEFORE, dies=False)
Planting = Callable[[pytest.MonkeyPatch, World], Awaitable[None]]


async def assert_kept(world: World, *accepted: str) -> None:
    """Both the promises of the storm and `callsheet verify` hold."""
    found = check(world.db.url, await world.books(), accepted)
    assert found.kept, (found.counts, found.notes)
    await assert_verified(world)


async def assert_verified(world: World) -> None:
    report = await verify(world.db, books=SimulatorBooks(world.fal, "http://fal"))
    assert report.ok, [(finding.check.name, finding.examples) for finding in report.findings]


async def at_rest(world: World) -> None:
    for _ in range(3):
        await make.let_time_pass(world.db)
        await world.dispatch()
        await world.ask()
        await world.at_fal(60)
        await told(world)
    await world.rescue()


async def told(world: World) -> None:
    """Let fal end all that it has, and tell of it until it is heard."""
    async with asyncio.timeout(60):
        while not all(request["told"] for request in await world.books()):
            await world.at_fal(1)
            await asyncio.sleep(0.01)


# --- What must hold, whatever befalls it ----------------------------------------------------------------------


async def an_order_whose_commit_fails(world: World) -> None:
    body = {"model": make.O3, "input": {"prompt": "a mecha", "duration": "5"}}
    with frail_api(world.app.state, FIRST):
        while not (answer := await world.api.post("/v1/jobs", json=body, headers={"Idempotency-Key": "1"})).is_success:
            assert answer.status_code >= 500
    await at_rest(world)
    await assert_kept(world, answer.json()["id"])


async def a_webhook_whose_commit_fails(world: World) -> None:
    job = await world.order("[[sim: lost_answer]] a mecha")
    await world.dispatch()
    with frail_api(world.app.state, FIRST):
        await world.at_fal(60)
        await told(world)
    await world.rescue()
    await assert_kept(world, job["id"])


async def a_submit_whose_answer_gets_lost(world: World) -> None:
    job = await world.order("[[sim: lost_answer, times=1]] a mecha")
    await world.dispatch()
    await at_rest(world)
    await assert_kept(world, job["id"])


async def a_late_answer_after_a_wrong_decision(world: World) -> None:
    intent = await make.taken(world.db, await make.make_tenant(world.db))
    await world.db.run(partial(lifecycle.lost, key=make.key_of(intent), why="ReadTimeout"))
    await world.db.run(partial(decisions.resolve_not_accepted, job=intent.job, reason="a guess"))
    await make.take(world.db)
    await make.submit(world.db, intent)
    assert (await verify(world.db)).ok


async def a_hold_that_is_resolved_again(world: World) -> None:
    caller = await make.make_tenant(world.db)
    intent = await make.taken(world.db, caller)
    await make.accept(world.db, caller)
    await make.submit(world.db, intent)
    await make.report(world.db, intent, make.failure())
    with suppress(IntegrityError):
        again = partial(ledger.charge, tenant_id=caller.tenant_id, job_id=intent.job.id, amount=Decimal("2.10"))
        await world.db.run(again)
    assert (await verify(world.db)).ok


async def one_order_that_comes_ten_times_at_once(world: World) -> None:
    body = {"model": make.O3, "input": {"prompt": "a mecha", "duration": "5"}}
    orders = (world.api.post("/v1/jobs", json=body, headers={"Idempotency-Key": "1"}) for _ in range(10))
    answers = await asyncio.gather(*orders)
    assert {answer.status_code for answer in answers} <= {200, 202}, [answer.text for answer in answers]
    assert len({answer.json()["id"] for answer in answers}) == 1
    await at_rest(world)
    await assert_kept(world, answers[0].json()["id"])


async def a_cancel_that_fal_hears_and_does_not_heed(world: World) -> None:
    job = await world.order("[[sim: run_s=30]] a mecha")
    await world.dispatch()
    await world.at_fal(5)
    await world.cancel(job["id"])
    await world.ask()
    await at_rest(world)
    await assert_kept(world, job["id"])


async def a_failure_that_a_stranger_calls_a_success(world: World) -> None:
    job = await world.order("[[sim: outcome=policy, webhook=tampered]] a mecha")
    await world.dispatch()
    await world.at_fal(60)
    # Before anybody asks fal, who would tell the truth.
    await told(world)
    await at_rest(world)
    await assert_kept(world, job["id"])


# --- What must not be in the product --------------------------------------------------------------------------


async def answers_before_the_commit(monkeypatch: pytest.MonkeyPatch, _: World) -> None:
    run = Database.run

    async def hasty(self: Database, work: Callable[[Any], Awaitable[Any]]) -> Any:
        done: list[Any] = []

        async def noted(session: Any) -> Any:
            done[:] = [await work(session)]
            await session.flush()
            # A rollback would empty what is told to the caller.
            session.expunge_all()
            return done[0]

        try:
            return await run(self, noted)
        except OperationalError:
            if not done:
                raise
            return done[0]

    async def hasty_one(self: Database, work: Callable[[Any], Awaitable[Any]]) -> Any:
        async def step(session: Any) -> Any:
            return await work(partial(ask_in, session))

        return await hasty(self, step)

    async def hasty_few(self: Database, work: Callable[[Any], Awaitable[Any]]) -> Any:
        async def step(session: Any) -> Any:
            return await work(few_in(session))

        return await hasty(self, step)

    monkeypatch.setattr(Database, "run", hasty)
    for kind in (Database, Frail):
        monkeypatch.setattr(kind, "run_one", hasty_one)
        monkeypatch.setattr(kind, "run_few", hasty_few)


async def sends_again_after_a_lost_answer(monkeypatch: pytest.MonkeyPatch, _: World) -> None:
    submit = FalClient.submit

    async def stubborn(self: FalClient, *args: Any, **kwargs: Any) -> Any:
        answer = await submit(self, *args, **kwargs)
        return await submit(self, *args, **kwargs) if isinstance(answer, Lost) else answer

    monkeypatch.setattr(FalClient, "submit", stubborn)


def without(statement: str) -> Planting:
    """A database that lost one of its indexes."""

    async def drop(_: pytest.MonkeyPatch, world: World) -> None:
        await world.db.run(lambda session: session.execute(text(statement)))

    return drop


async def settles_on_a_cancel_answer(monkeypatch: pytest.MonkeyPatch, _: World) -> None:
    async def cancel_answered(session: Any, key: AttemptKey, answer: CancelAnswer) -> None:
        attempt = await session.get(Attempt, tuple(key))
        job = JobKey(attempt.tenant_id, attempt.job_id)
        await lifecycle.end(session, job, JobStatus.CANCELED, f"fal said {answer}", error=job_error(499, None))

    monkeypatch.setattr(decisions, "cancel_answered", cancel_answered)


async def believes_whatever_comes(monkeypatch: pytest.MonkeyPatch, _: World) -> None:
    async def believe(self: Verifier, headers: Any, body: bytes, *_: Any) -> Signed:
        return Signed(json.loads(body)["request_id"], "", "", b"")

    monkeypatch.setattr(Verifier, "verify", believe)


@dataclass(frozen=True)
class Planted:
    """A *bug*, and the scenario that must notice it."""

    bug: Planting
    noticed_by: Callable[[World], Awaitable[None]]


PLANTED = {
    "an order is answered before its commit": Planted(answers_before_the_commit, an_order_whose_commit_fails),
    "a webhook is answered before its commit": Planted(answers_before_the_commit, a_webhook_whose_commit_fails),
    "a lost submit is sent again": Planted(sends_again_after_a_lost_answer, a_submit_whose_answer_gets_lost),
    "two attempts may be live": Planted(
        without("DROP INDEX uq_attempts_one_live"), a_late_answer_after_a_wrong_decision
    ),
    "a hold may be resolved twice": Planted(
        without("DROP INDEX uq_ledger_entries_resolution"), a_hold_that_is_resolved_again
    ),
    "an order may be kept twice": Planted(
        without("ALTER TABLE jobs DROP CONSTRAINT uq_jobs_tenant_id_idempotency_key"),
        one_order_that_comes_ten_times_at_once,
    ),
    "a cancel's answer settles": Planted(settles_on_a_cancel_answer, a_cancel_that_fal_hears_and_does_not_heed),
    "a webhook needs no signature": Planted(believes_whatever_comes, a_failure_that_a_stranger_calls_a_success),
}


@pytest.mark.parametrize("planted", PLANTED.values(), ids=list(PLANTED))
async def test_without_the_bug_the_scenario_holds(world, planted):
    await planted.noticed_by(world)


@pytest.mark.parametrize("planted", PLANTED.values(), ids=list(PLANTED))
async def test_with_the_bug_the_scenario_fails(world, planted, monkeypatch):
    await planted.bug(monkeypatch, world)

    with pytest.raises(AssertionError):
        await planted.noticed_by(world)
