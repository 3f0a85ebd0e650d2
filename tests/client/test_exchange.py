"""What is asked again, when, and for how long: conversations without a network."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from app.client import Conflict, Refused, TooManyRequests, Unavailable, Unreachable, exchange
from app.client.calls import Calls
from app.client.exchange import Ask, Flow, Patience, Pause, answered
from app.jobs.schemas import JOB_EXAMPLE

ASK = Ask("GET", "/v1/balance")
OK = httpx.Response(200, json={})


class Talk:
    """Has a conversation with a service that says what it is told to; time is counted, not spent."""

    def __init__(self, *replies: httpx.Response | Exception) -> None:
        self.replies = list(replies)
        self.asked: list[Ask] = []
        self.pauses: list[float] = []
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def have(self, flow: Flow[Any]) -> Any:
        try:
            step = next(flow)
            while True:
                if isinstance(step, Pause):
                    self.pauses.append(step.seconds)
                    self.time += step.seconds
                    step = flow.send(None)
                    continue
                self.asked.append(step)
                reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
                if isinstance(reply, Exception):
                    step = flow.throw(reply)
                else:
                    reply.request = httpx.Request("GET", "http://callsheet")
                    step = flow.send(reply)
        except StopIteration as end:
            return end.value


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    monkeypatch.setattr(exchange, "FIRST_S", 0.5)


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.ConnectError(""),
        httpx.ReadTimeout(""),
        httpx.RemoteProtocolError(""),
        *(httpx.Response(code) for code in (429, 500, 502, 503, 504)),
    ],
)
def test_what_may_pass_is_asked_again_ever_later(trouble):
    talk = Talk(trouble, trouble, trouble, OK)

    assert talk.have(answered(ASK, Patience(5))) is OK
    assert len(talk.asked) == 4
    assert [longest / 2 <= pause <= longest for pause, longest in zip(talk.pauses, [0.5, 1, 2], strict=True)] == [
        True
    ] * 3


@pytest.mark.parametrize("code", [400, 401, 402, 403, 404, 408, 409, 413, 415, 422])
def test_what_stays_refused_is_asked_once(code):
    talk = Talk(httpx.Response(code))

    with pytest.raises(Refused) as caught:
        talk.have(answered(ASK, Patience(5)))

    assert (caught.value.status, caught.value.code, len(talk.asked)) == (code, f"http_{code}", 1)


@pytest.mark.parametrize(
    ("trouble", "told"), [(httpx.ConnectError(""), Unreachable), (httpx.Response(503), Unavailable)]
)
def test_patience_ends(trouble, told):
    talk = Talk(trouble)

    with pytest.raises(told):
        talk.have(answered(ASK, Patience(3)))

    assert (len(talk.asked), len(talk.pauses)) == (4, 3)


def test_an_address_that_is_none_is_not_asked_again():
    talk = Talk(httpx.UnsupportedProtocol("no scheme"))

    with pytest.raises(Unreachable):
        talk.have(answered(ASK, Patience(3)))

    assert len(talk.asked) == 1


@pytest.mark.parametrize("code", [429, 503])
def test_retry_after_is_obeyed_to_the_second(code):
    talk = Talk(httpx.Response(code, headers={"Retry-After": "7"}), OK)

    talk.have(answered(ASK, Patience(5)))

    assert talk.pauses == [7.0]


def test_retry_after_can_be_a_date():
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    talk = Talk(httpx.Response(503, headers={"Retry-After": at}), OK)

    talk.have(answered(ASK, Patience(5)))

    assert 25 < talk.pauses[0] <= 30


def test_a_retry_after_that_takes_too_long_is_left_to_the_caller():
    talk = Talk(httpx.Response(429, headers={"Retry-After": "3600"}))

    with pytest.raises(TooManyRequests) as caught:
        talk.have(answered(ASK, Patience(5)))

    assert (caught.value.retry_after_s, talk.pauses) == (3600.0, [])


@pytest.mark.parametrize("nonsense", ["soon", "-1", "", "Mon, 01 Jan 2024 00:00:00 +99999999999999999"])
def test_a_retry_after_that_makes_no_sense_is_none(nonsense):
    talk = Talk(httpx.Response(503, headers={"Retry-After": nonsense}), OK)

    talk.have(answered(ASK, Patience(5)))

    assert talk.pauses[0] <= 0.5


def job_of(status: str) -> httpx.Response:
    return httpx.Response(200, json={**JOB_EXAMPLE, "status": status})


def test_all_tries_of_an_order_have_one_key_and_another_order_has_another():
    talk = Talk(httpx.ReadTimeout(""), httpx.Response(502), job_of("queued"))

    talk.have(Calls(5).create("model", {}, {}))
    talk.have(Calls(5).create("model", {}, {}))

    keys = [ask.headers["Idempotency-Key"] for ask in talk.asked]
    assert len(set(keys[:3])) == 1
    assert keys[3] != keys[0]
    assert all(ask.body == talk.asked[0].body for ask in talk.asked[:3])


@pytest.mark.parametrize("trouble", [httpx.ReadTimeout(""), httpx.Response(409, json={"code": "idempotency_conflict"})])
def test_an_order_that_fails_tells_its_key(trouble):
    with pytest.raises((Unreachable, Conflict)) as caught:
        Talk(trouble).have(Calls(1).create("model", {}, {"idempotency_key": "order-1001"}))

    assert caught.value.idempotency_key == "order-1001"


def test_a_wait_asks_at_length_and_over_troubles_until_its_time_is_over():
    talk = Talk(job_of("queued"), *[httpx.ConnectError("")] * 20, job_of("in_progress"), job_of("succeeded"))

    job = talk.have(Calls(0, talk.now).wait("x", 1000))

    assert job.status == "succeeded"
    assert [ask.headers["Prefer"] for ask in talk.asked[:2]] == ["wait=30", "wait=30"]
    assert all(ask.read_s > 30 for ask in talk.asked)


def test_a_wait_does_not_flood_a_service_that_answers_at_once():
    talk = Talk(*[job_of("queued")] * 9, job_of("failed"))

    talk.have(Calls(0, talk.now).wait("x", None))

    assert talk.pauses == [1.0] * 9


def test_a_wait_for_a_service_that_is_away_ends_in_time():
    talk = Talk(httpx.ConnectError(""))

    with pytest.raises(Unreachable):
        talk.have(Calls(0, talk.now).wait("x", 60))

    assert 45 < talk.time <= 60


@pytest.mark.parametrize(
    "answer", [httpx.Response(200, text="<html>"), httpx.Response(302), httpx.Response(200, json=[])]
)
def test_who_is_not_callsheet_is_told(answer):
    with pytest.raises(Unreachable, match=r"isn't Callsheet"):
        Talk(answer).have(Calls(0).balance())
