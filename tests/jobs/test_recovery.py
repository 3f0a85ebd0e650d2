"""What becomes of a submit whose answer got lost, when no webhook comes either: fal's history against the simulator."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from app import clock
from app.jobs import history
from tests import factories as make
from tests.world import World, build


async def ask(world: World, times: int = 3) -> None:
    """Let fal be asked, and everything be sent that may be sent."""
    for _ in range(times):
        await make.let_time_pass(world.db)
        await world.dispatch()
        await world.ask()


@pytest.mark.parametrize("fault", ["lost_answer", "answer=502"])
async def test_a_lost_submit_is_found_in_fals_history_and_settled_once(world, fault):
    job = await world.order(f"[[sim: {fault}, webhook=never]] a mecha")
    await world.dispatch()
    unknown = await world.job(job["id"])
    await world.at_fal(60)

    done = await world.reconciled(job["id"])

    (request,) = await world.books()
    assert unknown["status"] == "submit_unknown"
    assert (done["status"], done["attempts"], done["cost"]["charged"]) == ("succeeded", 1, "2.10")
    assert done["fal"]["request_id"] == request["request_id"]


async def test_a_failure_is_found_there_too(world):
    job = await world.order("[[sim: lost_answer, webhook=never, outcome=content_policy_violation]] a mecha")
    await world.dispatch()
    await world.at_fal(60)

    done = await world.reconciled(job["id"])

    assert (done["status"], done["error"]["code"], done["cost"]["charged"]) == (
        "failed",
        "content_policy_violation",
        "0.00",
    )


async def test_what_fal_never_had_stays_unknown_with_its_hold_and_is_never_sent_again(world):
    job = await world.order("[[sim: lost_request]] a mecha")
    await world.dispatch()
    await world.at_fal(60)
    await ask(world)

    now = await world.job(job["id"])

    assert (now["status"], now["cost"]["held"], now["cost"]["charged"]) == ("submit_unknown", "2.10", None)
    assert (now["attempts"], await world.books()) == (1, [])


async def test_many_lost_submits_are_found_in_one_reading_of_the_history(world):
    jobs = [await world.order(f"[[sim: lost_answer, webhook=never]] mecha {number}") for number in range(5)]
    await world.dispatch()
    await world.at_fal(60)
    await make.let_time_pass(world.db)

    questions = await world.ask()

    found = [await world.job(job["id"]) for job in jobs]
    assert (questions, {job["status"] for job in found}) == (1, {"submitted"})
    assert len({job["fal"]["request_id"] for job in found}) == 5


async def test_one_that_cannot_be_written_down_holds_up_none_of_the_others(world, monkeypatch):
    jobs = [await world.order(f"[[sim: lost_answer, webhook=never]] mecha {number}") for number in range(3)]
    await world.dispatch()
    await world.at_fal(60)
    await make.let_time_pass(world.db)
    recognise = history.recognise

    async def fails_for_the_second(session, lost, sent):
        if str(lost.job.id) == jobs[1]["id"]:
            raise IntegrityError("", {}, Exception())
        return await recognise(session, lost, sent)

    monkeypatch.setattr(history, "recognise", fails_for_the_second)
    await world.ask()

    found = [(await world.job(job["id"]))["status"] for job in jobs]
    assert found == ["submitted", "submit_unknown", "submitted"]


@pytest.mark.parametrize(("age", "wait_s"), [("1 minute", 30), ("10 minutes", 300), ("9 hours", 3600)])
async def test_a_lost_submit_is_looked_for_again_by_its_age_however_often_a_worker_died_with_it(world, age, wait_s):
    job = await world.order("[[sim: lost_request]] a mecha")
    await world.dispatch()
    async with world.db.session() as session:
        await session.execute(text(f"UPDATE attempts SET created_at = now() - interval '{age}'"))
        await session.execute(text("UPDATE jobs SET tries = 25, due_at = now()"))

    await world.ask()

    waits = await make.look(world.db, await make.key_of_id(world.db, job["id"]))
    assert waits.due_at is not None
    assert (waits.due_at - clock.now()).total_seconds() == pytest.approx(wait_s, abs=5)


@pytest.mark.parametrize("lists_queued", [True, False])
async def test_what_waits_in_fals_queue_is_found_once_it_is_listed(database_url, tmp_path, lists_queued):
    async with AsyncExitStack() as stack:
        world = await build(stack, database_url, tmp_path, history_lists_queued=lists_queued)
        job = await world.order("[[sim: lost_answer, webhook=never]] a mecha")
        await world.dispatch()
        await ask(world)
        queued = await world.job(job["id"])
        await world.at_fal(60)

        done = await world.reconciled(job["id"])

        assert queued["status"] == ("submitted" if lists_queued else "submit_unknown")
        assert (done["status"], done["cost"]["charged"]) == ("succeeded", "2.10")


async def test_between_two_equal_orders_nothing_is_guessed(world):
    jobs = [await world.order("[[sim: lost_answer, webhook=never]] a mecha") for _ in range(2)]
    await world.dispatch()
    await world.at_fal(60)
    await ask(world)

    found = [await world.job(job["id"]) for job in jobs]

    assert [job["status"] for job in found] == ["submit_unknown"] * 2
    assert [job["cost"]["held"] for job in found] == ["2.10"] * 2


async def test_an_equal_order_whose_answer_came_is_no_rival(world):
    known = await world.order("[[sim: lost_answer, webhook=never, times=1]] a mecha")
    await world.dispatch()
    other = await world.order("[[sim: lost_answer, webhook=never, times=1]] a mecha")
    await world.dispatch()
    await world.at_fal(60)

    done = [await world.reconciled(job["id"]) for job in (known, other)]

    assert [(job["status"], job["cost"]["charged"]) for job in done] == [("succeeded", "2.10")] * 2
    assert len({job["fal"]["request_id"] for job in done}) == 2


async def test_history_and_webhook_that_come_together_charge_once(world):
    job = await world.order("[[sim: lost_answer, webhook=ok*3]] a mecha")
    await world.dispatch()

    await asyncio.gather(world.at_fal(60), *(ask(world) for _ in range(4)))
    done = await world.ended(job["id"])

    entries = (await world.api.get("/v1/ledger")).json()["data"]
    assert (done["status"], done["attempts"]) == ("succeeded", 1)
    assert sorted(entry["kind"] for entry in entries) == ["charge", "hold"]
    assert len(await world.books()) == 1
