"""What can go wrong between an order and its answer, by script or by chance."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.simulator.app import create_simulator
from app.simulator.config import SimulatorConfig
from app.simulator.faults import FaultRates
from tests.simulator.conftest import AUTH, O3, Box, OpenBox


async def test_lost_answer_cuts_the_socket_after_the_order_was_booked(
    served: Callable[[Callable[[str], FastAPI]], Awaitable[str]], caplog: pytest.LogCaptureFixture
):
    fal = await served(lambda url: create_simulator(SimulatorConfig(public_url=url)))
    async with httpx.AsyncClient(base_url=fal, headers=AUTH) as client:
        with pytest.raises(httpx.TransportError):
            await client.post(f"/{O3}", json={"prompt": "[[sim: lost_answer]]"})
        with pytest.raises(httpx.TransportError):
            await client.post(f"/{O3}", json={"prompt": "[[sim: lost_request]]"})
        books = (await client.get("/simulator/requests")).json()

    assert [entry["input"]["prompt"] for entry in books["requests"]] == ["[[sim: lost_answer]]"]
    assert books["totals"]["lost_answers"] == 1
    assert [record for record in caplog.records if record.name.startswith(("uvicorn", "simulator"))] == []


async def test_lost_answer_looks_like_a_broken_connection_without_a_socket_too(box: Box):
    with pytest.raises(httpx.RemoteProtocolError):
        await box.post(script={"lost_answer": True})

    assert len(await box.books()) == 1


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        *((code, int(code)) for code in ("408", "409", "429", "500", "502", "503", "504")),
        *(("locked", 403), ("401", 401), ("unknown_app", 404), ("nginx", 503)),
    ],
)
async def test_refused_order_is_not_in_the_books(box: Box, refusal: str, code: int):
    answer = await box.post(script={"refuse": refusal})

    assert answer.status_code == code
    assert "x-fal-request-id" not in answer.headers
    assert ("nginx" in answer.text) is (refusal == "nginx")
    assert await box.books() == []


@pytest.mark.parametrize("code", [500, 502, 504])
async def test_error_may_hide_an_accepted_order(box: Box, code: int):
    answer = await box.post(script={"answer": code})

    assert answer.status_code == code
    assert len(await box.books()) == 1


async def test_slow_answer_comes_in_the_end(box: Box):
    assert (await box.post(script={"slow_answer_s": 0.01})).status_code == 200


async def test_fault_may_befall_an_order_a_number_of_times_only(box: Box):
    codes = [(await box.post(script={"refuse": "503", "times": 2})).status_code for _ in range(3)]

    assert codes == [503, 503, 200]


async def test_marker_works_in_every_prompt_and_wins(box: Box):
    shots = {"multi_prompt": [{"prompt": "a", "duration": "3"}, {"prompt": "b [[sim: refuse=503]]"}]}

    by_marker = await box.post(shots, script={"refuse": "429"})
    by_header = await box.post(script={"refuse": "429"})

    assert (by_marker.status_code, by_header.status_code) == (503, 429)


async def test_marker_tells_several_things(box: Box):
    order = {"prompt": "A lighthouse. [[sim: outcome=policy_billed, webhook=never, video_s=0.1]]", "duration": "5"}
    answer = await box.client.post(f"/{O3}", json=order)
    request = await box.told(answer.json()["request_id"])

    assert request.result is not None
    assert (request.result.code, str(request.result.amount)) == (422, "2.10")
    assert box.hook.heard == []


@pytest.mark.parametrize(
    "words", [{"lost_anser": True}, {"outcome": "odd"}, {"webhook": "perhaps"}, {"run_s": -1}, {"refuse": "200"}]
)
async def test_word_that_nobody_knows_is_refused(box: Box, words: dict[str, Any]):
    answer = await box.post(script=words)

    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("simulator: ")
    assert await box.books() == []


async def test_header_that_is_no_object_is_refused(box: Box):
    for header in ("nothing", "[1]"):
        answer = await box.client.post(f"/{O3}", json={}, headers={"X-Simulator-Script": header})
        assert answer.status_code == 400


async def test_queued_script_befalls_the_next_submits(box: Box):
    await box.client.put("/simulator/script", json={"script": {"refuse": "503"}, "next": 2})

    codes = [(await box.client.post(f"/{O3}", json={"prompt": "x"})).status_code for _ in range(3)]

    assert codes == [503, 503, 200]


async def test_early_reads_fail_when_scripted(box: Box):
    request_id = await box.submit(script={"read_errors": 2})
    await box.ended(request_id)

    codes = [(await box.result(request_id)).status_code for _ in range(3)]

    assert codes == [503, 503, 200]


@pytest.mark.parametrize(
    ("outcome", "code", "billed"),
    [
        ("ok", 200, "2.10"),
        ("policy", 422, "0"),
        ("policy_billed", 422, "2.10"),
        ("crash", 500, "0"),
        ("text", 422, "0"),
        ("runner_disconnected", 503, "0"),
        ("generation_timeout", 504, "0"),
        ("downstream_service_error", 400, "0"),
        ("no_media_generated", 422, "0"),
    ],
)
async def test_outcome_has_its_code_and_its_price(box: Box, outcome: str, code: int, billed: str):
    request_id = await box.submit({"prompt": "x", "duration": "5"}, script={"outcome": outcome})
    await box.ended(request_id)

    result, status = await box.result(request_id), (await box.status(request_id)).json()

    assert result.status_code == code
    assert "detail" in result.json() or code == 200
    assert ("error_type" in status) is (code != 200)
    assert (await box.books())[0]["billed"] == billed


async def fates(open_box: OpenBox, rates: FaultRates, count: int = 40) -> list[str]:
    box = await open_box(seed=7, faults=rates)
    found = []
    for number in range(count):
        try:
            answer = await box.client.post(f"/{O3}", json={"prompt": str(number), "duration": "1"})
            found.append(str(answer.status_code))
        except httpx.RemoteProtocolError:
            found.append("lost")
    return found


async def test_chance_is_the_same_for_the_same_seed(open_box: OpenBox):
    rates = FaultRates(lost_answer=0.2, refused_5xx=0.2, refused_429=0.1, answered_5xx=0.1)

    first, second = await fates(open_box, rates), await fates(open_box, rates)

    assert first == second
    assert set(first) == {"200", "429", "502", "503", "lost"}


async def test_every_chance_at_certainty_is_a_script_that_can_be_read(box: Box):
    for name in ("lost_request", "failed", "policy", "stepped_back", "webhook_early", "webhook_forged", "reads_5xx"):
        answer = await box.client.put("/simulator/faults", json={name: 1})
        assert answer.json()[name] == 1
        drawn = box.simulator.fate(None, {})
        assert json.dumps(drawn) != "{}"


@pytest.mark.parametrize("rates", [{"unheard_of": 1}, {"policy": 2}, {"policy": -0.1}])
async def test_impossible_chances_are_refused(box: Box, rates: dict[str, float]):
    assert (await box.client.put("/simulator/faults", json=rates)).status_code == 422
