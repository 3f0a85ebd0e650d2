"""The queue: order, wait, run, result, cancel."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from app.simulator.app import create_simulator
from app.simulator.config import SimulatorConfig
from app.simulator.requests import State
from tests.simulator.conftest import AUTH, BASE, O3, PATIENCE_S, Box, OpenBox

NOT_FOUND = {"status": "NOT_FOUND"}


async def test_submit_answers_with_an_id_and_three_absolute_urls(box: Box):
    answer = await box.post()

    said = answer.json()
    base = f"{BASE}/fal-ai/kling-video/requests/{said['request_id']}"
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-fal-request-id"] == said["request_id"]
    assert (said["response_url"], said["status_url"], said["cancel_url"]) == (base, f"{base}/status", f"{base}/cancel")
    assert (said["status"], said["queue_position"], said["logs"], said["metrics"]) == ("IN_QUEUE", 0, None, {})


async def test_urls_keep_the_prefix_that_the_client_was_pointed_to(box: Box):
    answer = await box.client.post(f"/queue/{O3}", json={"prompt": "x"})

    assert answer.json()["status_url"].startswith(f"{BASE}/queue/fal-ai/kling-video/requests/")
    assert (await box.client.get(answer.json()["status_url"])).status_code in {200, 202}


async def test_status_goes_through_the_three_states_and_is_200_only_at_the_end(slow_box: Box):
    request_id = await slow_box.submit()

    queued = await slow_box.status(request_id, logs="1")
    await slow_box.advance(10)
    running = await slow_box.status(request_id, logs="1")
    await slow_box.advance(10)
    await slow_box.ended(request_id)
    completed = await slow_box.status(request_id, logs="1")

    assert [one.status_code for one in (queued, running, completed)] == [202, 202, 200]
    assert queued.json()["queue_position"] == 0
    assert queued.json()["logs"] is None
    assert "queue_position" not in running.json()
    assert running.json()["logs"][0].keys() == {"message", "level", "source", "timestamp"}
    assert completed.json()["metrics"] == {"inference_time": 10.0}
    assert {"response_url", "status_url", "cancel_url"} <= completed.json().keys()
    assert "error" not in completed.json()


@pytest.mark.parametrize(("spelled", "on"), [("1", True), ("true", True), ("True", True), ("0", False), ("no", False)])
async def test_logs_are_switched_by_either_spelling(box: Box, spelled: str, on: bool):
    request_id = await box.submit()
    await box.ended(request_id)

    said = (await box.status(request_id, logs=spelled)).json()

    assert "logs" in said
    assert (said["logs"] is not None) is on


@pytest.mark.parametrize(
    "path",
    [
        "/fal-ai/kling-video/requests/{id}",
        "/fal-ai/kling-video/requests/{id}/",
        "/fal-ai/kling-video/requests/{id}/response",
        "/fal-ai/kling-video/o3/4k/text-to-video/requests/{id}/response",
        "/fal-ai/kling-video/o3/4k/text-to-video/requests/{id}",
        "/queue/fal-ai/kling-video/requests/{id}",
    ],
)
async def test_result_is_found_by_every_form_of_path(box: Box, path: str):
    request_id = await box.submit()
    await box.ended(request_id)

    answer = await box.client.get(path.format(id=request_id))

    assert answer.status_code == 200
    assert answer.json().keys() == {"video"}


async def test_status_takes_full_ids_and_trailing_slashes(box: Box):
    request_id = await box.submit()
    await box.ended(request_id)

    assert (await box.client.get(f"/{O3}/requests/{request_id}/status/")).json()["status"] == "COMPLETED"


@pytest.mark.parametrize(
    ("endpoint", "app"),
    [
        ("workflows/me/flow/sub", "workflows/me/flow"),
        ("comfy/me/flow", "comfy/me/flow"),
        ("kling/v4/text-to-video", "kling/v4"),
        ("1234-app", "1234/app"),
    ],
)
async def test_namespaces_and_old_ids_name_their_app(box: Box, endpoint: str, app: str):
    answer = await box.post({}, endpoint=endpoint)

    request_id = answer.json()["request_id"]
    assert answer.json()["status_url"] == f"{BASE}/{app}/requests/{request_id}/status"
    assert (await box.client.get(answer.json()["status_url"])).status_code in {200, 202}


async def test_result_names_the_file_its_request_and_its_units(box: Box):
    request_id = await box.submit({"prompt": "x", "duration": "7"})
    await box.ended(request_id)

    answer = await box.result(request_id)

    assert answer.json()["video"].keys() == {"url", "content_type", "file_name", "file_size"}
    assert answer.headers["x-fal-request-id"] == request_id
    assert answer.headers["x-fal-billable-units"] == "7"
    assert (await box.result(request_id)).content == answer.content


async def test_result_read_too_early_is_refused(slow_box: Box):
    request_id = await slow_box.submit()

    answer = await slow_box.result(request_id)

    assert answer.status_code == 400
    assert answer.json() == {"detail": "Request is still in progress"}


async def test_unknown_requests_and_those_of_other_apps_are_not_found(box: Box):
    request_id = await box.submit()

    unknown = await box.status("00000000-0000-4000-8000-000000000000")
    elsewhere = await box.client.get(f"/fal-ai/flux/requests/{request_id}")

    assert (unknown.status_code, unknown.json()) == (404, NOT_FOUND)
    assert (elsewhere.status_code, elsewhere.json()) == (404, NOT_FOUND)


async def test_submit_looks_at_no_input(box: Box):
    answer = await box.client.post(f"/{O3}", content=b"{not json", headers={"content-type": "application/json"})

    request = await box.ended(answer.json()["request_id"])

    assert answer.status_code == 200
    assert request.result is not None
    assert request.result.code == 422


async def test_the_same_order_twice_is_two_paid_requests(box: Box):
    first, second = [await box.submit({"prompt": "x", "duration": "5"}) for _ in range(2)]
    await box.ended(first)
    await box.ended(second)

    books = await box.books()

    assert first != second
    assert [entry["billed"] for entry in books] == ["2.10", "2.10"]
    assert [entry["submits"] for entry in books] == [2, 2]


async def test_only_as_many_run_as_may_and_the_rest_have_places(slow_box: Box):
    ids = [await slow_box.submit() for _ in range(5)]
    places = [(await slow_box.status(one)).json()["queue_position"] for one in ids]
    await slow_box.advance(10)

    states = [slow_box.request(one).state for one in ids]
    later = [(await slow_box.status(one)).json()["queue_position"] for one in ids[2:]]

    assert places == [0, 1, 2, 3, 4]
    assert states == [State.IN_PROGRESS] * 2 + [State.IN_QUEUE] * 3
    assert later == [0, 1, 2]


async def test_low_priority_waits_behind_normal(slow_box: Box):
    low = await slow_box.submit(x_fal_queue_priority="low")
    normal = [await slow_box.submit() for _ in range(2)]
    behind = (await slow_box.status(low)).json()["queue_position"]
    # Both are due at once, and whoever's time is up first must not win by it.
    slow_box.simulator.queue.concurrency = 0
    await slow_box.advance(10)
    await slow_box.client.put("/simulator/account", json={"concurrency": 2})

    assert behind == 2
    assert slow_box.request(low).state is State.IN_QUEUE
    assert all(slow_box.request(one).state is State.IN_PROGRESS for one in normal)


async def test_too_long_a_queue_is_refused_when_asked_to(slow_box: Box):
    for _ in range(2):
        await slow_box.submit()

    short = await slow_box.client.post(f"/{O3}?fal_max_queue_length=1", json={})
    long = await slow_box.client.post(f"/{O3}?fal_max_queue_length=2", json={})

    assert (short.status_code, long.status_code) == (429, 200)


@pytest.mark.parametrize("header", ["x_fal_request_start_timeout", "x_fal_request_timeout"])
async def test_request_that_does_not_start_in_time_ends_with_504(slow_box: Box, header: str):
    request_id = await slow_box.submit(**{header: "5.0"})
    await slow_box.advance(5)
    request = await slow_box.told(request_id)

    status, result = await slow_box.status(request_id), await slow_box.result(request_id)

    assert (status.status_code, status.json()["error_type"]) == (200, "request_timeout")
    assert result.status_code == 504
    assert result.headers["x-fal-request-timeout-type"] == "user"
    assert result.headers["x-fal-error-type"] == "request_timeout"
    assert slow_box.hook.said[0]["error"] == "Invalid status code: 504"
    assert request.result is not None
    assert request.result.amount == 0


async def test_newer_start_timeout_header_wins_and_a_started_request_is_left_alone(slow_box: Box):
    request_id = await slow_box.submit(x_fal_request_start_timeout="15", x_fal_request_timeout="5")
    await slow_box.advance(10)

    await slow_box.advance(6)

    assert slow_box.request(request_id).state is State.IN_PROGRESS


async def test_retried_request_steps_back_into_the_queue_under_the_same_id(slow_box: Box):
    request_id = await slow_box.submit(script={"retries": 1})
    await slow_box.advance(10)
    first = slow_box.request(request_id).gateway_request_id
    await slow_box.advance(10)

    status = (await slow_box.status(request_id)).json()
    await slow_box.advance(10)
    await slow_box.advance(10)
    request = await slow_box.told(request_id)

    assert status["status"] == "IN_QUEUE"
    assert first == request_id
    assert request.attempts == 2
    assert slow_box.hook.said[0]["gateway_request_id"] == request.gateway_request_id != request_id
    assert slow_box.hook.said[0]["status"] == "OK"


async def test_no_retry_makes_a_lost_runner_final(box: Box):
    request_id = await box.submit(script={"retries": 1}, x_fal_no_retry="1")
    request = await box.ended(request_id)

    result = await box.result(request_id)

    assert request.attempts == 1
    assert (result.status_code, result.json()["error_type"]) == (503, "runner_disconnected")


async def test_start_timeout_runs_across_attempts(slow_box: Box):
    request_id = await slow_box.submit(script={"retries": 3}, x_fal_request_timeout="15")
    await slow_box.advance(10)
    await slow_box.advance(10)

    request = await slow_box.ended(request_id)

    assert request.result is not None
    assert request.result.error_type == "request_timeout"


async def test_cancelled_in_the_queue_is_gone_for_free(slow_box: Box):
    request_id = await slow_box.submit()

    cancelled = await slow_box.cancel(request_id)
    result = await slow_box.result(request_id)

    assert (cancelled.status_code, cancelled.json()) == (200, {"status": "OK"})
    assert (await slow_box.status(request_id)).json()["status"] == "COMPLETED"
    assert (result.status_code, result.headers["x-fal-billable-units"]) == (499, "0")


@pytest.mark.parametrize(
    ("cancel", "code", "billed"), [("finish", 200, "2.10"), ("stop", 499, "0"), ("stop_billed", 499, "2.10")]
)
async def test_cancelled_while_running_it_ends_as_the_script_says(slow_box: Box, cancel: str, code: int, billed: str):
    request_id = await slow_box.submit({"prompt": "x", "duration": "5"}, script={"cancel": cancel})
    await slow_box.advance(10)

    cancelled = await slow_box.cancel(request_id)
    await slow_box.advance(10)
    request = await slow_box.ended(request_id)

    assert (cancelled.status_code, cancelled.json()) == (202, {"status": "CANCELLATION_REQUESTED"})
    assert request.result is not None
    assert (request.result.code, str(request.result.amount)) == (code, billed)


async def test_cancelled_just_before_a_late_video_it_ends_once(slow_box: Box, monkeypatch: pytest.MonkeyPatch):
    clips, made = slow_box.simulator.clips, asyncio.Event()
    ready, make, making = clips.ready, clips.make, []

    async def later(shape: Any) -> Any:
        await made.wait()
        return await make(shape)

    def begun(shape: Any) -> Any:
        making.append(asyncio.ensure_future(later(shape)))
        return making[-1]

    monkeypatch.setattr(clips, "ready", lambda shape: ready(shape) if made.is_set() else None)
    monkeypatch.setattr(clips, "make", begun)
    request_id = await slow_box.submit(script={"cancel": "stop"})
    await slow_box.advance(10)
    request, clock = slow_box.request(request_id), slow_box.simulator.clock

    clock.set(advance_s=10)
    slow_box.simulator.queue.cancel(request)
    clock.run_due()
    await slow_box.settle()
    made.set()
    await asyncio.gather(*making)
    await slow_box.settle()

    assert request.result is not None
    assert (request.result.code, str(request.result.amount)) == (499, "0")


async def test_cancel_after_the_end_is_too_late_and_of_nothing_is_not_found(box: Box):
    request_id = await box.submit()
    await box.ended(request_id)

    late, unknown = await box.cancel(request_id), await box.cancel("nobody")

    assert (late.status_code, late.json()) == (400, {"status": "ALREADY_COMPLETED"})
    assert (unknown.status_code, unknown.json()) == (404, NOT_FOUND)


@pytest.mark.parametrize(("pad", "kept_s"), [(0, 3600), (10_240, 360)])
async def test_result_is_kept_for_an_hour_or_six_minutes_when_large(box: Box, pad: int, kept_s: int):
    request_id = await box.submit(script={"pad": pad})
    await box.ended(request_id)
    box.simulator.clock.set(stopped=True)

    await box.advance(kept_s - 5)
    before = await box.result(request_id)
    await box.advance(10)
    after = await box.result(request_id)

    assert before.status_code == 200
    assert (after.status_code, after.json()) == (404, NOT_FOUND)


async def test_stuck_requests_never_move(slow_box: Box):
    queued = await slow_box.submit(script={"stuck": "queue"})
    running = await slow_box.submit(script={"stuck": "run"})

    await slow_box.advance(100_000)

    assert slow_box.request(queued).state is State.IN_QUEUE
    assert slow_box.request(running).state is State.IN_PROGRESS


async def test_status_stream_ends_after_completed_and_is_kept_open_by_comments(served: Any):
    app = create_simulator(SimulatorConfig(public_url=BASE, queue_s=10, run_s=10, comment_s=0.001))
    fal = await served(lambda _: app)
    clock = app.state.simulator.clock
    clock.set(stopped=True)
    said = []

    async with httpx.AsyncClient(base_url=fal, headers=AUTH) as client:
        order = {"prompt": "[[sim: video_s=0.1]]", "duration": "5"}
        request_id = (await client.post(f"/{O3}", json=order)).json()["request_id"]
        async with client.stream("GET", f"/fal-ai/kling-video/requests/{request_id}/status/stream?logs=1") as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data: "):
                    said.append(json.loads(line[6:])["status"])
                elif line and said[-1:] != [line]:
                    said.append(line)
                    clock.set(advance_s=10 if line == ": ping" else 0)

    assert stream.headers["content-type"].startswith("text/event-stream")
    assert said == [": connected", "IN_QUEUE", ": ping", "IN_PROGRESS", ": ping", "COMPLETED"]


async def test_status_stream_tells_what_moves_while_a_slow_reader_takes_it(slow_box: Box):
    request_id = await slow_box.submit()

    async def slowly(scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            await send(message)
            if message.get("body", b"").startswith(b"data: "):
                slow_box.simulator.clock.set(advance_s=10)

        await slow_box.app(scope, receive, sent)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(slowly), base_url=BASE, headers=AUTH) as reader:
        async with asyncio.timeout(PATIENCE_S):
            stream = await reader.get(f"/fal-ai/kling-video/requests/{request_id}/status/stream")

    said = [json.loads(line[6:])["status"] for line in stream.text.split("\n\n") if line.startswith("data: ")]
    assert said == ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]


async def test_who_may_not_call_is_told_as_fal_tells(open_box: OpenBox):
    box = await open_box(keys=frozenset({"kid:ksecret"}), apps=frozenset({"fal-ai/kling-video"}))
    request_id = await box.submit()
    wrong = {"Authorization": "Key other"}

    submit = await box.client.post(f"/{O3}", json={}, headers=wrong)
    status = await box.client.get(f"/fal-ai/kling-video/requests/{request_id}/status", headers=wrong)
    unknown = await box.client.post("/fal-ai/h3-max/x", json={})

    assert submit.status_code == 401
    assert submit.json()["detail"].startswith('Cannot access application "fal-ai/kling-video".')
    assert (status.status_code, status.json()) == (401, {"detail": "invalid key credentials"})
    assert (unknown.status_code, unknown.json()) == (404, {"detail": 'Application "h3-max" not found'})


async def test_order_without_any_key_is_refused(box: Box):
    assert (await box.client.post(f"/{O3}", json={}, headers={"Authorization": ""})).status_code == 401


async def test_wrong_methods_are_refused(box: Box):
    request_id = await box.submit()

    assert (await box.client.get(f"/{O3}")).status_code == 405
    assert (await box.client.post(f"/fal-ai/kling-video/requests/{request_id}/cancel")).status_code == 405
    assert (await box.client.post("/lonely", json={})).status_code == 404
