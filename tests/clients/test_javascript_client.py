"""
fal's own JavaScript client against the simulator: the contract's exchanges J1 to J12, request by request.

The client runs as released, in Node, its calls led here by its own `requestMiddleware`. It ignores the URLs of a
submit answer and builds its own on queue.fal.run; only uploads go where an answer tells.
"""

import re
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

from tests.clients.recorder import Exchange
from tests.clients.stage import MIB, Client, Start

JS: Final = {
    "accept": "application/json",
    "authorization": "Key kid:ksecret",
    "content-type": "application/json",
    "user-agent": "@fal-ai/client/1.10.1",
}
# What fetch says of itself where the client says nothing.
FETCH: Final = {"accept", "user-agent"}
NORMAL: Final = {"x-fal-queue-priority": "normal"}
STREAM: Final = {"accept": "application/json, text/event-stream"}
O3: Final = "fal-ai/kling-video/o3/4k/text-to-video"
APP: Final = "fal-ai/kling-video"
SUBMIT: Final = f"POST queue.fal.run/{O3}"
INITIATE: Final = "POST rest.fal.ai/storage/upload/initiate?storage_type=fal-cdn-v3"
LONG: Final = 600.0


def submitted(submit: Exchange, body: bytes = b'{"prompt":"hi"}') -> str:
    """The request id that a bare submit, J2, was answered with."""
    assert submit.line == SUBMIT
    assert submit.headers == JS | NORMAL
    assert submit.body == body
    assert submit.status == 200
    return str(UUID(submit.answered["request_id"]))


def of_request(request_id: str, method: str = "GET", end: str = "") -> str:
    """A call about a request, at the address that the client builds by itself."""
    return f"{method} queue.fal.run/{APP}/requests/{request_id}{end}"


async def test_j1_submit_with_every_option(javascript: Start):
    fal = await javascript(queue_s=LONG)

    said = await fal.do("j1")

    [submit] = fal.heard
    assert submit.line == f"{SUBMIT}?fal_webhook=https%3A%2F%2Fme.example%2Fhook%3Fjob%3D1%26k%3Dv"
    assert submit.headers == JS | {
        "x-fal-no-retry": "1",
        "x-fal-object-lifecycle-preference": '{"expiration_duration_seconds":86400}',
        "x-fal-queue-priority": "low",
        "x-fal-runner-hint": "h1",
        "x-fal-request-timeout": "30",
    }
    assert submit.body == b'{"prompt":"hi","duration":"5"}'
    assert submit.status == 200
    assert said["returned"] == submit.answered
    assert said["returned"]["status"] == "IN_QUEUE"
    assert said["returned"].keys() >= {"request_id", "response_url", "status_url", "cancel_url", "queue_position"}


async def test_j2_submit_bare(javascript: Start):
    fal = await javascript(queue_s=LONG)

    said = await fal.do("j2")

    [submit] = fal.heard
    assert said["returned"] == submit.answered
    assert said["returned"]["request_id"] == submitted(submit)


async def test_j3_status_without_and_with_logs(javascript: Start):
    fal = await javascript(run_s=LONG)

    said = await fal.do("j3")

    submit, bare, with_logs = fal.heard
    request_id = submitted(submit)
    assert bare.line == of_request(request_id, end="/status?logs=0")
    assert with_logs.line == of_request(request_id, end="/status?logs=1")
    assert bare.headers == with_logs.headers == JS
    assert bare.status == with_logs.status == 202
    assert said["returned"] == [bare.answered, with_logs.answered]
    assert [one["status"] for one in said["returned"]] == ["IN_PROGRESS", "IN_PROGRESS"]
    assert bare.answered["logs"] is None
    assert len(with_logs.answered["logs"]) == 1


async def test_j4_result_comes_with_the_request_id_of_its_header(javascript: Start):
    fal = await javascript()

    said = await fal.do("j4")

    result = fal.heard[-1]
    request_id = submitted(fal.heard[0])
    assert result.line == of_request(request_id)
    assert result.headers == JS
    assert result.status == 200
    assert said["returned"] == {"data": result.answered, "requestId": request_id}
    assert said["returned"]["data"]["video"].keys() >= {"url", "content_type"}


async def test_j5_cancel_of_a_running_request(javascript: Start):
    fal = await javascript(run_s=LONG)

    said = await fal.do("j5")

    submit, cancel = fal.heard
    assert cancel.line == of_request(submitted(submit), "PUT", "/cancel")
    assert cancel.headers == JS
    assert cancel.size == 0
    assert (cancel.status, cancel.answered) == (202, {"status": "CANCELLATION_REQUESTED"})
    assert said["returned"] == "undefined"


async def test_j5_cancel_of_a_finished_request(javascript: Start):
    fal = await javascript()

    said = await fal.do("j5_done")

    cancel = fal.heard[-1]
    assert cancel.line == of_request(submitted(fal.heard[0]), "PUT", "/cancel")
    assert (cancel.status, cancel.answered) == (400, {"status": "ALREADY_COMPLETED"})
    assert said["raised"]["type"] == "ApiError"
    assert said["raised"]["status"] == 400
    assert said["raised"]["body"] == {"status": "ALREADY_COMPLETED"}


async def test_j6_subscribe_polls_until_completed_and_reads_the_result(javascript: Start):
    fal = await javascript(queue_s=LONG, run_s=LONG)

    said = await fal.do_in_time("j6", LONG, LONG)

    submit, *polls, result = fal.heard
    request_id = submitted(submit)
    assert {poll.line for poll in polls} == {of_request(request_id, end="/status?logs=1")}
    assert result.line == of_request(request_id)
    assert said["returned"] == {
        "data": result.answered,
        "requestId": request_id,
        "updates": [poll.answered["status"] for poll in polls],
    }
    assert list(dict.fromkeys(said["returned"]["updates"])) == ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]


async def test_j7_subscribe_reads_the_status_stream_past_its_comments(javascript: Start):
    fal = await javascript(queue_s=LONG, run_s=LONG)

    said = await fal.do_in_time("j7", LONG, LONG)

    submit, stream, result = fal.heard
    request_id = submitted(submit)
    assert stream.line == of_request(request_id, end="/status/stream?logs=1")
    assert stream.headers == JS | STREAM
    assert stream.status == 200
    assert stream.answer_headers["content-type"].startswith("text/event-stream")
    assert [line for line in stream.answer.decode().splitlines() if line.startswith(":")]
    assert result.line == of_request(request_id)
    statuses = [event["status"] for event in stream.events]
    assert statuses == ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
    assert said["returned"] == {
        "data": result.answered,
        "requestId": request_id,
        "updates": statuses,
    }


async def test_j8_run_waits_for_the_output(javascript: Start):
    fal = await javascript()

    said = await fal.do("j8")

    [run] = fal.heard
    assert run.line == f"POST fal.run/{O3}"
    assert run.headers == JS
    assert run.body == b'{"prompt":"hi","duration":"5"}'
    assert run.status == 200
    request_id = run.answer_headers["x-fal-request-id"]
    assert said["returned"] == {"data": run.answered, "requestId": request_id}


async def test_j9_stream_yields_the_events(javascript: Start):
    fal = await javascript()

    said = await fal.do("j9")

    [stream] = fal.heard
    assert stream.line == f"POST fal.run/{O3}/stream"
    assert stream.headers == JS | STREAM
    assert stream.body == b'{"prompt":"hi","duration":"5"}'
    assert said["returned"] == {"events": stream.events, "done": stream.events[-1]}


async def test_j10_upload_to_the_url_it_was_given(javascript: Start):
    fal = await javascript()

    said = await fal.do("j10")

    initiate, put = fal.heard
    assert initiate.line == INITIATE
    assert initiate.headers == JS | {"x-fal-object-lifecycle": '{"expiration_duration_seconds":86400}'}
    assert initiate.body == b'{"content_type":"text/plain","file_name":"a.txt"}'
    assert uploaded(fal, initiate, put) == b"hello"
    assert put.headers["content-type"] == "text/plain"
    assert said["returned"] == initiate.answered["file_url"]
    assert await fal.read(said["returned"]) == b"hello"


async def test_j10_upload_says_nothing_of_a_lifetime_unasked(javascript: Start):
    fal = await javascript()

    await fal.do("j10_bare")

    assert fal.heard[0].headers == JS


async def test_j11_a_blob_in_the_input_is_uploaded_first(javascript: Start):
    fal = await javascript(queue_s=LONG)

    said = await fal.do("j11")

    initiate, put, submit = fal.heard
    assert initiate.line == INITIATE
    assert initiate.headers == JS
    assert initiate.json["content_type"] == "image/png"
    assert re.fullmatch(r"\d{13}\.png", initiate.json["file_name"])
    assert uploaded(fal, initiate, put) == b"not really a picture"
    assert submit.line == "POST queue.fal.run/fal-ai/kling-video/o3/4k/image-to-video"
    assert submit.headers == JS | NORMAL
    assert submit.json == {"prompt": "hi", "image_url": initiate.answered["file_url"]}
    assert said["returned"] == submit.answered


async def test_j12_a_file_of_91_mib_goes_up_in_parts(javascript: Start):
    fal = await javascript()

    said = await fal.do("j12", size=91 * MIB)

    initiate, *parts, complete = fal.heard
    assert initiate.line == "POST rest.fal.ai/storage/upload/initiate-multipart?storage_type=fal-cdn-v3"
    assert initiate.headers == JS
    assert initiate.json == {"content_type": "video/mp4", "file_name": "a.mp4"}
    target = urlsplit(initiate.answered["upload_url"])
    query = target.query and f"?{target.query}"
    assert [part.line for part in parts] == [f"PUT simulator{target.path}/{n}{query}" for n in range(1, 11)]
    assert [part.size for part in parts] == [10 * MIB] * 9 + [MIB]
    assert [part.answered["partNumber"] for part in parts] == list(range(1, 11))
    assert all(part.headers.keys() == FETCH for part in parts)
    assert complete.line == f"POST simulator{target.path}/complete{query}"
    assert complete.headers.keys() == FETCH | {"content-type"}
    assert complete.json == {
        "parts": [{"partNumber": n, "etag": part.answered["etag"]} for n, part in enumerate(parts, start=1)]
    }
    assert complete.status == 200
    assert said["returned"] == initiate.answered["file_url"]
    assert await fal.size(said["returned"]) == 91 * MIB
    seam = slice(10 * MIB - 9, 10 * MIB + 9)
    assert await fal.read(said["returned"], seam) == (b"callsheet" * 3)[seam.start % 9 :][:18]


def uploaded(fal: Client, initiate: Exchange, put: Exchange) -> bytes:
    """What was put at the URL that *initiate* was answered with."""
    assert initiate.status == 200
    assert put.method == "PUT"
    assert initiate.answered["upload_url"] == f"{fal.own_url}{put.target}"
    assert put.headers.keys() == FETCH | {"content-type"}
    assert put.status == 200
    assert (put.answer, put.answer_headers["content-type"].partition(";")[0]) == (b"", "text/plain")
    return put.body
