"""Direct calls: the connection is held until the video is there."""

import json

from app.simulator.requests import State
from tests.simulator.conftest import O3, Box, OpenBox

SHORT = {"prompt": "[[sim: video_s=0.1]]", "duration": "5"}


async def test_run_answers_with_the_output(box: Box):
    answer = await box.client.post(f"/run/{O3}", json=SHORT)

    assert answer.status_code == 200
    assert answer.json().keys() == {"video"}
    assert answer.headers["x-fal-request-id"] == (await box.books())[0]["request_id"]
    assert answer.headers["x-fal-billable-units"] == "5"


async def test_wrong_input_is_the_direct_answer(box: Box):
    answer = await box.client.post(f"/run/{O3}", json={})

    assert answer.status_code == 422
    assert answer.headers["x-fal-billable-units"] == "0"
    assert answer.json()["detail"][0]["type"] == "missing"


async def test_stream_ends_with_the_output(box: Box):
    answer = await box.client.post(f"/run/{O3}/stream", json=SHORT, headers={"Accept": "text/event-stream"})

    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if line]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert len(events) == 2
    assert events[-1].keys() == {"video"}


async def test_more_than_may_run_are_refused(open_box: OpenBox):
    box = await open_box(concurrency=1, run_s=60)
    request_id = await box.submit()
    await box.until(request_id, lambda request: request.state is State.IN_PROGRESS)

    answer = await box.client.post(f"/run/{O3}", json=SHORT)

    assert answer.status_code == 429
    assert answer.json()["detail"][0]["type"] == "concurrent_requests_limit"
    assert answer.headers["x-fal-needs-retry"] == "1"


async def test_direct_calls_meet_the_same_guards(open_box: OpenBox):
    box = await open_box(apps=frozenset({"fal-ai/kling-video"}))
    nobody = await box.client.post(f"/run/{O3}", json=SHORT, headers={"Authorization": ""})
    unknown = await box.client.post("/run/fal-ai/flux", json={})
    await box.client.put("/simulator/account", json={"locked": True})
    locked = await box.client.post(f"/run/{O3}", json=SHORT)

    assert (nobody.status_code, unknown.status_code, locked.status_code) == (401, 404, 403)
    assert (await box.client.get(f"/run/{O3}")).status_code == 405
