"""Asking and telling fal: what counts as accepted, as proof of the opposite, and as neither."""

from typing import Any

import httpx
import pytest

from app.fal.client import FalClient, Unanswered
from app.fal.messages import Accepted, CancelAnswer, Lost, Outcome, Progress, Refused, Report
from app.settings import Settings
from app.wiring import fal_accounts

MODEL = "fal-ai/kling-video/o3/4k/text-to-video"
BASE = "https://queue.fal.run/fal-ai/kling-video/requests/r1"
ANSWER = {"request_id": "r1", "status_url": f"{BASE}/status", "response_url": BASE, "cancel_url": f"{BASE}/cancel"}


class Fal:
    """Answers every request with *answer*, and keeps what was asked."""

    def __init__(self, answer: httpx.Response | Exception) -> None:
        self.answer = answer
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    @property
    def client(self) -> FalClient:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self))
        return FalClient(http, queue_url="https://queue.fal.run", key="id:secret")


def answer(code: int, body: Any = None, **headers: str) -> httpx.Response:
    return httpx.Response(code, json=body, headers={name.replace("_", "-"): value for name, value in headers.items()})


async def submit(fal: Fal, **options: Any) -> Accepted | Refused | Lost:
    return await fal.client.submit(
        MODEL, {"prompt": "é", "duration": "5"}, webhook_url="https://me.example/h?a=1&b=2", **options
    )


async def test_a_submit_is_what_fals_own_client_sends():
    fal = Fal(answer(200, {**ANSWER, "queue_position": 3, "status": "IN_QUEUE"}))

    taken = await submit(fal, start_timeout_s=30.0, priority="low")

    (request,) = fal.asked
    assert taken == Accepted("r1", ANSWER["status_url"], BASE, ANSWER["cancel_url"], 3)
    assert str(request.url) == f"https://queue.fal.run/{MODEL}?fal_webhook=https%3A%2F%2Fme.example%2Fh%3Fa%3D1%26b%3D2"
    assert request.headers["authorization"] == "Key id:secret"
    assert request.headers["x-fal-queue-priority"] == "low"
    assert request.headers["x-fal-request-start-timeout"] == request.headers["x-fal-request-timeout"] == "30.0"
    assert request.content == '{"prompt":"é","duration":"5"}'.encode()


@pytest.mark.parametrize(
    ("code", "why", "final"),
    [
        (401, "key_refused", False),
        (402, "account_locked", False),
        (403, "fal", False),
        (429, "fal", False),
        (404, "fal", True),
        (422, "fal", True),
        (413, "fal", True),
    ],
)
async def test_fals_own_no_is_proof(code, why, final):
    refused = await submit(Fal(answer(code, {"detail": "no"})))

    assert isinstance(refused, Refused)
    assert (refused.code, refused.why, refused.final) == (code, why, final)


@pytest.mark.parametrize(
    ("detail", "why"),
    [
        (
            "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing",
            "account_locked",
        ),
        ("User is locked. Reason: TOS violation.", "account_locked"),
        ("You have no access to this model.", "fal"),
        ("This model is locked.", "fal"),
        ([{"msg": "User is locked"}], "fal"),
        (None, "fal"),
    ],
)
async def test_only_a_locked_account_is_the_accounts_trouble(detail, why):
    refused = await submit(Fal(answer(403, {"detail": detail})))

    assert isinstance(refused, Refused)
    assert (refused.why, refused.parks, refused.final) == (why, why != "fal", False)


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("x"), httpx.ConnectTimeout("x"), httpx.PoolTimeout("x"), httpx.LocalProtocolError("x")]
)
async def test_where_nothing_was_sent_fal_has_nothing(error):
    refused = await submit(Fal(error))

    assert isinstance(refused, Refused)
    assert (refused.code, refused.final) == (None, False)


@pytest.mark.parametrize(
    "lost",
    [
        httpx.ReadTimeout("x"),
        httpx.WriteTimeout("x"),
        httpx.ReadError("x"),
        httpx.WriteError("x"),
        httpx.RemoteProtocolError("x"),
        answer(500, {"detail": "x"}),
        answer(502, {"detail": "x"}),
        answer(503),
        answer(504),
        answer(408),
        answer(409),
        answer(302, location="https://elsewhere.example"),
        answer(202, ANSWER),
        answer(200, {}),
        answer(200, {**ANSWER, "request_id": ""}),
        answer(200, {**ANSWER, "status_url": None}),
        httpx.Response(200, content=b"<html>"),
    ],
    ids=lambda lost: type(lost).__name__ if isinstance(lost, Exception) else f"{lost.status_code}",
)
async def test_anything_else_proves_nothing_and_is_sent_once(lost):
    fal = Fal(lost)

    assert isinstance(await submit(fal), Lost)

    assert len(fal.asked) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("99999", 3600.0),
        ("x", None),
        ("", None),
        ("Mon, 01 Jan 2024 00:00:00 -0000", 0.0),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999999", None),
    ],
)
async def test_fal_may_say_when_to_come_back(text, seconds):
    refused = await submit(Fal(answer(429, {"detail": "busy"}, retry_after=text)))

    assert isinstance(refused, Refused)
    assert refused.retry_after_s == seconds


@pytest.mark.parametrize(
    ("body", "code", "progress"),
    [
        ({"status": "IN_QUEUE", "queue_position": 4}, 202, Progress(running=False, queue_position=4)),
        ({"status": "IN_QUEUE"}, 202, Progress(running=False)),
        ({"status": "IN_PROGRESS", "logs": None}, 202, Progress(running=True)),
        ({"status": "COMPLETED"}, 200, None),
    ],
)
async def test_a_status_is_read_from_its_body(body, code, progress):
    assert await Fal(answer(code, body)).client.status(MODEL, "r1", ANSWER["status_url"]) == progress


@pytest.mark.parametrize(
    "bad", [answer(404, {"status": "NOT_FOUND"}), answer(500), answer(200, {}), answer(401), httpx.ReadTimeout("x")]
)
async def test_a_status_that_says_nothing_changes_nothing(bad):
    with pytest.raises(Unanswered):
        await Fal(bad).client.status(MODEL, "r1", None)


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        (answer(200, {"video": {"url": "x"}}, x_fal_request_id="r1"), Outcome.SUCCEEDED),
        (answer(200, {"video": {"url": "x"}}), Outcome.SUCCEEDED),
        (answer(422, {"detail": [{"type": "content_policy_violation", "msg": "no", "loc": []}]}), Outcome.FAILED),
        (answer(500, {"detail": "Internal Server Error"}, x_fal_request_id="r1"), Outcome.FAILED),
        (answer(499, {"detail": "x"}), Outcome.CANCELED),
        (answer(504, {"detail": "x", "error_type": "request_timeout"}), Outcome.EXPIRED),
        (answer(499, None, x_fal_request_id="r1"), Outcome.CANCELED),
    ],
)
async def test_a_result_is_a_verdict(result, outcome):
    report = await Fal(result).client.result(MODEL, "r1", BASE)

    assert isinstance(report, Report)
    assert report.outcome is outcome


@pytest.mark.parametrize(
    "bad",
    [
        answer(404, {"status": "NOT_FOUND"}),
        answer(400, {"detail": "Request is still in progress"}),
        answer(401, {"detail": "invalid key credentials"}),
        answer(403, {"detail": "User is locked"}),
        answer(429, {"detail": "slow down"}),
        httpx.Response(502, content=b"<html>nginx</html>"),
        httpx.Response(200, content=b"<html>maintenance</html>"),
        answer(200, {"status": "NOT_FOUND"}),
        answer(500, {"detail": "Internal Server Error"}),
        answer(200, {"video": {"url": "x"}}, x_fal_request_id="another"),
        httpx.Response(503, content=b""),
        httpx.ReadError("x"),
    ],
)
async def test_an_answer_that_is_not_the_models_is_no_verdict(bad):
    with pytest.raises(Unanswered):
        await Fal(bad).client.result(MODEL, "r1", BASE)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (ANSWER["status_url"], ANSWER["status_url"]),
        ("https://eu.queue.fal.run/x/requests/r1/status", "https://eu.queue.fal.run/x/requests/r1/status"),
        ("https://evil.example/status", f"{BASE}/status"),
        ("https://queue.fal.run.evil.example/status", f"{BASE}/status"),
        ("http://queue.fal.run/status", f"{BASE}/status"),
        ("http://169.254.169.254/", f"{BASE}/status"),
        (None, f"{BASE}/status"),
    ],
)
async def test_the_key_follows_no_url_away_from_fal(given, asked):
    fal = Fal(answer(200, {"status": "COMPLETED"}))

    await fal.client.status(MODEL, "r1", given)

    assert str(fal.asked[0].url) == asked


@pytest.mark.parametrize(
    ("model", "app"), [("workflows/me/flow/sub", "workflows/me/flow"), ("a/b/c/d", "a/b"), ("a/b", "a/b")]
)
async def test_a_url_made_here_names_only_owner_and_app(model, app):
    fal = Fal(answer(200, {"status": "COMPLETED"}))

    await fal.client.status(model, "r 1/../x", None)

    assert str(fal.asked[0].url) == f"https://queue.fal.run/{app}/requests/r%201%2F..%2Fx/status"


@pytest.mark.parametrize(
    ("code", "body", "said"),
    [
        (200, {"status": "OK"}, CancelAnswer.GONE),
        (202, {"status": "CANCELLATION_REQUESTED"}, CancelAnswer.REQUESTED),
        (400, {"status": "ALREADY_COMPLETED"}, CancelAnswer.TOO_LATE),
        (404, {"status": "NOT_FOUND"}, CancelAnswer.UNKNOWN),
        (200, {"success": True}, CancelAnswer.REQUESTED),
    ],
)
async def test_a_cancel_is_put_to_fals_own_address_and_answered(code, body, said):
    fal = Fal(answer(code, body))

    assert await fal.client.cancel(MODEL, "r1", f"{BASE}/cancel") is said

    (request,) = fal.asked
    assert (request.method, str(request.url)) == ("PUT", f"{BASE}/cancel")
    assert request.headers["authorization"] == "Key id:secret"


async def test_a_cancel_without_an_address_goes_to_the_request_of_the_app():
    fal = Fal(answer(202, {"status": "CANCELLATION_REQUESTED"}))

    await fal.client.cancel(MODEL, "r1", None)

    assert str(fal.asked[0].url) == f"{BASE}/cancel"


@pytest.mark.parametrize(
    "said",
    [
        answer(400, {"detail": "?"}),
        answer(401, {"detail": "invalid key credentials"}),
        answer(404, {"detail": "not found"}),
        answer(502),
        httpx.ReadTimeout(""),
    ],
)
async def test_a_cancel_that_fal_did_not_answer_is_unanswered(said):
    with pytest.raises(Unanswered):
        await Fal(said).client.cancel(MODEL, "r1", None)


async def test_fals_own_retries_and_fallback_are_left_alone_unless_told():
    fal = Fal(answer(200, ANSWER))
    http = httpx.AsyncClient(transport=httpx.MockTransport(fal))
    settings = Settings.read(fal_key="id:secret", fal_no_retry=True, fal_no_fallback=True, _env_file=None)

    await submit(fal)
    account = next(iter(fal_accounts(settings, http, http).all))
    await account.queue.submit(MODEL, {}, webhook_url=None)

    usual, told = (request.headers for request in fal.asked)
    assert not {"x-fal-no-retry", "x-app-fal-disable-fallback"} & set(usual)
    assert told["x-fal-no-retry"] == told["x-app-fal-disable-fallback"] == "true"
