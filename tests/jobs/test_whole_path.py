"""From an order to its video and its price: dispatcher, receiver and reconciler against the simulator."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import httpx
import pytest
from sqlalchemy import text

from app import clock
from app.media.measure import Measure
from tests import factories as make
from tests.world import build, run_once


async def test_an_order_becomes_a_video_with_an_exact_price(world):
    job = await world.order()

    assert await world.dispatch() == 1
    assert (await world.job(job["id"]))["status"] == "submitted"
    await world.at_fal(60)
    done = await world.ended(job["id"])

    assert (done["status"], done["cost"]["charged"], done["attempts"]) == ("succeeded", "2.10", 1)
    assert done["output"]["video"]["url"].endswith(".mp4")
    (request,) = await world.books()
    assert request["request_id"] == done["fal"]["request_id"]


async def test_without_a_webhook_the_result_is_asked_for(world):
    job = await world.order("[[sim: webhook=never]] a mecha")
    await world.dispatch()
    await world.at_fal(60)

    done = await world.reconciled(job["id"])

    assert (done["status"], done["cost"]["charged"]) == ("succeeded", "2.10")


async def test_without_a_public_address_fal_is_asked(database_url, tmp_path):
    async with AsyncExitStack() as stack:
        world = await build(stack, database_url, tmp_path, public_url=None)
        job = await world.order()
        await world.dispatch()
        await world.at_fal(60)

        done = await world.reconciled(job["id"])

        assert (done["status"], done["cost"]["charged"]) == ("succeeded", "2.10")
        (request,) = await world.books()
        assert not request["webhook_url"]


async def test_progress_is_told_while_it_waits(world):
    job = await world.order("[[sim: webhook=never]] a mecha")
    await world.dispatch()
    await make.let_time_pass(world.db)
    await world.ask()
    queued = await world.job(job["id"])
    await world.at_fal(1.5)
    await make.let_time_pass(world.db)
    await world.ask()
    running = await world.job(job["id"])

    assert (queued["status"], queued["waiting"]["for"], queued["waiting"]["queue_position"]) == (
        "submitted",
        "fal_queue",
        0,
    )
    assert (running["status"], running["waiting"]["for"]) == ("in_progress", "fal")
    assert running["waiting"]["expected_at"] is not None


@pytest.mark.parametrize("fault", ["lost_answer", "answer=500", "answer=502", "answer=504"])
async def test_a_lost_answer_is_never_sent_again_and_the_webhook_settles_it(world, fault):
    job = await world.order(f"[[sim: {fault}]] a mecha")
    await world.dispatch()
    unknown = await world.job(job["id"])
    await make.let_time_pass(world.db)
    await world.dispatch()
    await world.ask()

    await world.at_fal(60)
    done = await world.ended(job["id"])

    assert (unknown["status"], unknown["waiting"]["for"], unknown["cost"]["held"]) == (
        "submit_unknown",
        "verdict",
        "2.10",
    )
    assert (done["status"], done["attempts"], done["cost"]["charged"]) == ("succeeded", 1, "2.10")
    assert len(await world.books()) == 1


@pytest.mark.parametrize(
    ("refusal", "waits_for"), [("429", "fal"), ("401", "account_locked"), ("locked", "account_locked")]
)
async def test_a_proven_refusal_is_tried_again_until_it_is_taken(world, refusal, waits_for):
    job = await world.order(f"[[sim: refuse={refusal}, times=1]] a mecha")
    await world.dispatch()
    refused = await world.job(job["id"])
    await make.let_time_pass(world.db)
    await world.dispatch()
    await world.at_fal(60)

    done = await world.ended(job["id"])

    assert (refused["status"], refused["waiting"]["for"]) == ("queued", waits_for)
    assert (done["status"], done["attempts"], done["cost"]["charged"]) == ("succeeded", 2, "2.10")
    assert len(await world.books()) == 1


async def test_a_refusal_for_good_fails_the_job(world):
    job = await world.order("[[sim: refuse=unknown_app]] a mecha")
    await world.dispatch()

    done = await world.job(job["id"])

    assert (done["status"], done["error"]["code"], done["cost"]["charged"]) == ("failed", "fal_404", "0.00")
    assert await world.books() == []


@pytest.mark.parametrize("news", ["webhook", "asking"])
async def test_a_policy_refusal_fails_the_job_with_its_reason_and_without_its_prompt(world, news):
    prompt = "a secret mecha"
    quiet = ", webhook=never" if news == "asking" else ""
    job = await world.order(f"[[sim: outcome=content_policy_violation{quiet}]] {prompt}")
    await world.dispatch()
    await world.at_fal(60)

    done = await (world.ended(job["id"]) if news == "webhook" else world.reconciled(job["id"]))

    assert (done["status"], done["error"]["code"]) == ("failed", "content_policy_violation")
    assert prompt not in str(done["error"])
    assert done["cost"]["charged"] == "0.00"


async def test_forged_webhooks_before_the_real_one_change_nothing(world):
    job = await world.order("[[sim: webhook=forged+unknown_key+old+unsigned+tampered+ok]] a mecha")
    await world.dispatch()
    await world.at_fal(600)

    done = await world.ended(job["id"])

    assert (done["status"], done["cost"]["charged"]) == ("succeeded", "2.10")
    verdicts: Sequence[str] = []
    async with asyncio.timeout(10):
        # What is refused is noted beside what is settled.
        while "unsigned" not in verdicts:
            async with world.db.session() as session:
                verdicts = (await session.scalars(text("SELECT verdict FROM webhook_inbox"))).all()
    assert verdicts.count("settled") == 1


async def test_a_webhook_that_comes_many_times_charges_once(world):
    job = await world.order("[[sim: webhook=ok*5]] a mecha")
    await world.dispatch()
    await world.at_fal(600)
    await world.ended(job["id"])

    entries = (await world.api.get("/v1/ledger")).json()["data"]
    assert sorted(entry["kind"] for entry in entries) == ["charge", "hold"]


async def test_a_webhook_before_the_submit_answer_settles_the_job(world):
    job = await world.order("[[sim: webhook=early, slow_answer_s=0.05]] a mecha")

    await world.dispatch()
    done = await world.ended(job["id"])

    assert (done["status"], done["cost"]["charged"], done["attempts"]) == ("succeeded", "2.10", 1)
    (request,) = await world.books()
    assert request["request_id"] == done["fal"]["request_id"]


async def test_a_result_that_fal_no_longer_has_settles_nothing(world):
    job = await world.order("[[sim: webhook=never, result_s=0]] a mecha")
    await world.dispatch()
    await world.at_fal(60)
    await world.over_at_fal()
    while (await world.books())[0]["ended_at"] is None:
        await asyncio.sleep(0.01)
    await world.at_fal(7200)
    for _ in range(3):
        await make.let_time_pass(world.db)
        await world.ask()

    now = await world.job(job["id"])

    assert (now["status"], now["cost"]["held"], now["cost"]["charged"]) == ("submitted", "2.10", None)


async def test_a_worker_that_died_while_submitting_leaves_a_job_that_says_so(world):
    job = await world.order()
    await make.take(world.db)
    await make.let_time_pass(world.db)
    await world.ask()

    now = await world.job(job["id"])

    assert (now["status"], now["waiting"]["for"]) == ("submit_unknown", "verdict")
    assert await world.dispatch() == 0
    assert await world.books() == []


async def test_webhook_and_question_at_the_same_moment_charge_once(world):
    job = await world.order()
    await world.dispatch()
    await make.let_time_pass(world.db)

    await asyncio.gather(world.at_fal(60), *(world.ask() for _ in range(4)))
    done = await world.reconciled(job["id"])

    assert done["cost"]["charged"] == "2.10"
    assert Decimal((await world.api.get("/v1/balance")).json()["held"]) == 0


async def test_shots_are_charged_by_their_sum(world):
    shots = [{"prompt": f"shot {n}", "duration": n} for n in ("3", "4", "5")]
    job = await world.order(input={"multi_prompt": shots})
    await world.dispatch()
    await world.at_fal(60)

    assert (await world.ended(job["id"]))["cost"]["charged"] == "5.04"


async def test_where_the_price_depends_on_a_file_the_delivered_length_is_charged(world):
    model = "fal-ai/kling-video/o1/video-to-video/edit"
    value = {"prompt": "[[sim: video_s=4]] make it night", "video_url": "https://example.com/in.mp4"}
    job = await world.order(model=model, input=value)
    assert (job["cost"]["quoted"], job["cost"]["held"]) == ("1.6884", "1.6884")
    await world.dispatch()
    await world.at_fal(60)

    done = await world.ended(job["id"])

    assert (done["status"], done["cost"]["seconds"], done["cost"]["charged"]) == ("succeeded", "4", "0.672")


async def test_a_price_that_depends_on_a_video_waits_for_it_however_long_the_run_took(world):
    model = "fal-ai/kling-video/o1/video-to-video/edit"
    script = "[[sim: webhook=never, run_s=900, video_s=4]] make it night"
    job = await world.order(model=model, input={"prompt": script, "video_url": "https://example.com/in.mp4"})
    await world.dispatch()
    for _ in range(8):
        await world.at_fal(60)
        await make.let_time_pass(world.db)
        await world.ask()
    assert (await world.job(job["id"]))["status"] == "in_progress"
    await world.at_fal(600)
    await world.over_at_fal()
    away = httpx.MockTransport(lambda _: httpx.Response(503))
    blind = replace(world.reconciler, measure=Measure(httpx.AsyncClient(transport=away)))

    for _ in range(6):
        await make.let_time_pass(world.db)
        await run_once(blind)
    waiting = await world.job(job["id"])
    done = await world.reconciled(job["id"])

    assert (waiting["status"], waiting["waiting"]["for"], waiting["cost"]["charged"]) == ("in_progress", "video", None)
    assert waiting["cost"]["held"] == "1.6884"
    assert (done["status"], done["cost"]["seconds"], done["cost"]["charged"]) == ("succeeded", "4", "0.672")


async def test_a_request_that_fal_knows_nothing_of_any_more_keeps_its_hold_and_says_what_it_waits_for(world):
    job = await world.order("[[sim: webhook=never, result_s=0]] a mecha")
    await world.dispatch()
    await world.at_fal(60)
    await world.over_at_fal()

    for _ in range(6):
        await make.let_time_pass(world.db)
        await world.ask()

    now = await world.job(job["id"])
    row = await make.look(world.db, await make.key_of_id(world.db, job["id"]))
    assert (now["status"], now["waiting"]["for"], now["cost"]["held"]) == ("submitted", "fal_answer", "2.10")
    assert row.due_at is not None
    assert row.due_at < clock.now() + timedelta(seconds=400)


async def test_an_answer_that_comes_after_all_is_what_a_job_waits_for_no_more(world):
    job = await world.order("[[sim: webhook=never, read_errors=1, queue_s=500]] a mecha")
    await world.dispatch()
    seen = []
    for _ in range(2):
        await make.let_time_pass(world.db)
        await world.ask()
        seen.append((await world.job(job["id"]))["waiting"]["for"])

    assert seen == ["fal_answer", "fal_queue"]


async def test_a_deadline_is_handed_on_and_ends_the_job_for_free(world):
    job = await world.order("[[sim: queue_s=500]] a mecha", deadline_s=30)
    await world.dispatch()
    await world.at_fal(100)

    done = await world.ended(job["id"])

    assert (done["status"], done["cost"]["charged"]) == ("expired", "0.00")
