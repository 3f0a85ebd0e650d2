"""
fal's own Python client against the simulator: the contract's exchanges P1 to P14, request by request.

The client runs as released. HTTPS_PROXY leads every call of its process here, so the hosts below are the ones
it asked for; the URLs of a submit answer are the simulator's own, and it follows those too.
"""

import json
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from tests.clients.recorder import Exchange
from tests.clients.stage import MIB, Start

PY: Final = {"accept": "*/*", "authorization": "Key kid:ksecret", "user-agent": "fal-client/1.0.3 (python)"}
JSON: Final = {"content-type": "application/json"}
O3: Final = "fal-ai/kling-video/o3/4k/text-to-video"
APP: Final = "fal-ai/kling-video"
SUBMIT: Final = f"POST queue.fal.run/{O3}"
ORDER: Final = b'{"prompt":"hi","duration":"5"}'
LONG: Final = 600.0


def submitted(exchange: Exchange) -> str:
    """The request id that a submit was answered with."""
    answer = exchange.answered
    assert exchange.status == 200
    assert exchange.answer_headers["content-type"] == "application/json"
    assert exchange.answer_headers["x-fal-request-id"] == answer["request_id"]
    assert answer["status"] == "IN_QUEUE"
    assert isinstance(answer["queue_position"], int)
    assert {"response_url", "status_url", "cancel_url"} <= answer.keys()
    return str(UUID(answer["request_id"]))


def handle(exchange: Exchange) -> dict[str, str]:
    """What a handle to a submit's request is made of."""
    fields = ("request_id", "response_url", "status_url", "cancel_url")
    return {"type": "SyncRequestHandle"} | {name: exchange.answered[name] for name in fields}


def of_request(request_id: str, method: str = "GET", end: str = "") -> str:
    """A call about a request at the address that the submit answer named."""
    return f"{method} simulator/{APP}/requests/{request_id}{end}"


async def test_p1_submit_with_every_option(python: Start):
    fal = await python(queue_s=LONG)

    said = await fal.do("p1")

    [submit] = fal.heard
    assert submit.line == f"{SUBMIT}?fal_webhook=https%3A%2F%2Fme.example%2Fhook%3Fjob%3D1%26k%3Dv"
    options = {"x-fal-runner-hint": "h1", "x-fal-queue-priority": "low", "x-fal-request-timeout": "30.0"}
    given = {"x-fal-no-retry": "1", "x-fal-store-io": "0"}
    assert submit.headers == PY | JSON | options | given
    assert submit.body == ORDER
    assert said["returned"] == handle(submit)
    assert said["returned"]["request_id"] == submitted(submit)


async def test_p2_submit_bare(python: Start):
    fal = await python(queue_s=LONG)

    said = await fal.do("p2")

    [submit] = fal.heard
    assert submit.line == SUBMIT
    assert submit.headers == PY | JSON
    assert submit.body == ORDER
    assert said["returned"] == handle(submit)
    assert said["returned"]["request_id"] == submitted(submit)


async def test_p3_status_of_a_queued_request(python: Start):
    fal = await python(queue_s=LONG)

    said = await fal.do("p3")

    submit, status = fal.heard
    assert status.line == of_request(submitted(submit), end="/status?logs=false")
    assert status.headers == PY
    assert status.size == 0
    assert status.status == 202
    assert status.answered["status"] == "IN_QUEUE"
    assert status.answered["logs"] is None
    assert said["returned"] == {"type": "Queued", "position": 0}


async def test_p4_status_with_logs_of_a_running_request(python: Start):
    fal = await python(run_s=LONG)

    said = await fal.do("p4")

    submit, status = fal.heard
    assert status.line == of_request(submitted(submit), end="/status?logs=true")
    assert status.headers == PY
    assert status.status == 202
    assert status.answered["status"] == "IN_PROGRESS"
    assert said["returned"] == {"type": "InProgress", "logs": status.answered["logs"]}
    [log] = said["returned"]["logs"]
    assert log.keys() == {"message", "level", "source", "timestamp"}


async def test_p5_get_polls_until_completed_and_reads_the_result(python: Start):
    fal = await python(queue_s=LONG, run_s=LONG)

    said = await fal.do_in_time("p5", LONG, LONG)

    submit, *polls, result = fal.heard
    request_id = submitted(submit)
    assert {poll.line for poll in polls} == {of_request(request_id, end="/status?logs=false")}
    assert [poll.status for poll in polls] == [202] * (len(polls) - 1) + [200]
    assert list(dict.fromkeys(poll.answered["status"] for poll in polls)) == ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"]
    assert result.line == of_request(request_id)
    assert result.headers == PY
    assert result.status == 200
    assert result.answer_headers["x-fal-request-id"] == request_id
    assert said["returned"] == result.answered
    assert said["returned"]["video"].keys() >= {"url", "content_type"}


async def test_p6_cancel_of_a_running_request(python: Start):
    fal = await python(run_s=LONG)

    said = await fal.do("p6")

    submit, cancel = fal.heard
    assert cancel.line == of_request(submitted(submit), "PUT", "/cancel")
    assert cancel.headers == PY
    assert (cancel.length, cancel.body) == ("0", b"")
    assert (cancel.status, cancel.answered) == (202, {"status": "CANCELLATION_REQUESTED"})
    assert said["returned"] is None


async def test_p7_cancel_of_a_finished_request(python: Start):
    fal = await python()

    said = await fal.do("p7")

    cancel = fal.heard[-1]
    assert cancel.line == of_request(submitted(fal.heard[0]), "PUT", "/cancel")
    assert (cancel.length, cancel.body) == ("0", b"")
    assert (cancel.status, cancel.answered) == (400, {"status": "ALREADY_COMPLETED"})
    assert said["raised"]["type"] == "FalClientHTTPError"
    assert said["raised"]["status"] == 400


async def test_p8_status_of_an_unknown_request(python: Start):
    fal = await python()
    request_id = str(uuid4())

    said = await fal.do("p8", request_id=request_id)

    [status] = fal.heard
    assert status.line == f"GET queue.fal.run/{APP}/requests/{request_id}/status?logs=false"
    assert status.headers == PY
    assert (status.status, status.answered) == (404, {"status": "NOT_FOUND"})
    assert said["raised"]["type"] == "FalClientHTTPError"
    assert said["raised"]["status"] == 404


async def test_p9_subscribe_with_logs_priority_and_a_time_limit(python: Start):
    # The time limit goes to fal as a start timeout, so the wait has to stay below it.
    fal = await python(queue_s=19, run_s=LONG)

    said = await fal.do_in_time("p9", 19, LONG)

    submit, *polls, last_poll, result = fal.heard
    request_id = submitted(submit)
    assert submit.line == SUBMIT
    assert submit.headers == PY | JSON | {"x-fal-queue-priority": "normal", "x-fal-request-timeout": "20.0"}
    assert submit.body == ORDER
    assert {poll.line for poll in polls} == {of_request(request_id, end="/status?logs=true")}
    assert last_poll.line == of_request(request_id, end="/status?logs=false")
    assert result.line == of_request(request_id)
    assert said["returned"]["output"] == result.answered
    names = {"IN_QUEUE": "Queued", "IN_PROGRESS": "InProgress", "COMPLETED": "Completed"}
    updates = [update["type"] for update in said["returned"]["updates"]]
    assert updates == [names[poll.answered["status"]] for poll in polls]
    assert list(dict.fromkeys(updates)) == list(names.values())


async def test_p10_run_waits_for_the_output(python: Start):
    fal = await python()

    said = await fal.do("p10")

    [run] = fal.heard
    assert run.line == f"POST fal.run/{O3}"
    assert run.headers == PY | JSON | {"x-fal-runner-hint": "h1", "x-fal-request-timeout": "5.0"}
    assert run.body == ORDER
    assert run.status == 200
    assert said["returned"] == run.answered
    assert said["returned"]["video"]["url"].startswith("https://")


async def test_p11_stream_yields_the_events(python: Start):
    fal = await python()

    said = await fal.do("p11")

    [stream] = fal.heard
    assert stream.line == f"POST fal.run/{O3}/stream"
    assert stream.headers == PY | JSON | {"accept": "text/event-stream", "cache-control": "no-store"}
    assert stream.body == ORDER
    assert said["returned"] == stream.events
    assert said["returned"][-1]["video"]["url"].startswith("https://")


async def test_p12_a_namespace_stays_before_the_owner(python: Start):
    fal = await python(queue_s=LONG)

    said = await fal.do("p12")

    submit, status = fal.heard
    request_id = submitted(submit)
    assert submit.line == "POST queue.fal.run/workflows/me/flow/sub"
    assert status.line == f"GET queue.fal.run/workflows/me/flow/requests/{request_id}/status?logs=false"
    assert submit.answered["status_url"].endswith(f"/workflows/me/flow/requests/{request_id}/status")
    assert said["returned"]["type"] == "Queued"


async def test_p13_upload_with_a_token_of_the_cdn(python: Start):
    fal = await python()

    said = await fal.do("p13")

    token, upload = fal.heard
    assert token.line == "POST rest.fal.ai/storage/auth/token?storage_type=fal-cdn-v3"
    assert token.headers == {
        "accept": "application/json",
        "authorization": "Key kid:ksecret",
        "content-type": "application/json",
        "user-agent": "python-httpx/0.28.1",
    }
    assert token.body == b"{}"
    assert token.answered.keys() >= {"token", "base_url", "expires_at"}
    assert token.answered["token_type"] == "Bearer"
    assert upload.line == "POST v3.fal.media/files/upload"
    lifecycle = {
        "expiration_duration_seconds": 86400,
        "initial_acl": {"default": "hide", "rules": [{"user": "user-42", "decision": "allow"}]},
    }
    headers = dict(upload.headers)
    assert json.loads(headers.pop("x-fal-object-lifecycle")) == lifecycle
    assert json.loads(headers.pop("x-fal-object-lifecycle-preference")) == lifecycle
    bearer = {"authorization": f"Bearer {token.answered['token']}"}
    assert headers == PY | bearer | {"content-type": "text/plain", "x-fal-file-name": "a.txt"}
    assert upload.body == b"hello"
    assert upload.status == 200
    assert said["returned"] == upload.answered["access_url"]


async def test_p13_upload_is_kept_and_says_nothing_of_a_lifetime_unasked(python: Start):
    fal = await python()

    said = await fal.do("p13_bare")

    _, upload = fal.heard
    assert not [name for name in upload.headers if "lifecycle" in name]
    assert await fal.read(said["returned"]) == b"hello"


async def test_p14_upload_to_the_older_storage(python: Start):
    fal = await python()

    said = await fal.do("p14")

    initiate, put = fal.heard
    assert initiate.line == "POST rest.fal.ai/storage/upload/initiate?storage_type=gcs"
    assert initiate.headers == PY | JSON | {"accept": "application/json"}
    assert initiate.body == b'{"file_name":"a.txt","content_type":"text/plain"}'
    assert initiate.answered.keys() >= {"upload_url", "file_url"}
    assert (put.method, put.host) == ("PUT", "simulator")
    assert initiate.answered["upload_url"] == f"{fal.own_url}{put.target}"
    assert put.headers == PY | {"content-type": "text/plain"}
    assert put.body == b"hello"
    assert put.status == 200
    assert said["returned"] == initiate.answered["file_url"]
    assert await fal.read(said["returned"]) == b"hello"


async def test_a_file_of_more_than_100_mib_goes_up_in_parts_ten_at_once(python: Start):
    fal = await python()
    size = 100 * MIB + 1

    said = await fal.do("multipart", size=size)

    token, start, *parts, complete = fal.heard
    headers = PY | {"authorization": f"Bearer {token.answered['token']}"}
    assert start.line == "POST simulator/files/upload/multipart"
    assert start.headers == headers | {
        "accept": "application/json",
        "content-type": "video/mp4",
        "x-fal-file-name": "a.mp4",
    }
    path = urlsplit(start.answered["access_url"]).path + "/multipart/" + start.answered["uploadId"]
    assert sorted(part.line for part in parts) == sorted(f"PUT simulator{path}/{n}" for n in range(1, 12))
    assert sum(part.size for part in parts) == size
    assert all(part.headers == headers | {"content-type": "video/mp4"} for part in parts)
    assert complete.line == f"POST simulator{path}/complete"
    assert complete.headers == headers | JSON
    # In the order in which the parts were done, whatever that was.
    assert sorted((part["partNumber"], part["etag"]) for part in complete.json["parts"]) == sorted(
        (int(part.target.rpartition("/")[2]), part.answer_headers["etag"]) for part in parts
    )
    assert said["returned"] == start.answered["access_url"]
    assert await fal.size(said["returned"]) == size
