"""What fal says, in our words."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.fal import messages
from app.fal.messages import Outcome, Report, Unreadable

VIDEO = {"video": {"url": "https://v3b.fal.media/files/b/0a8d04e2/x.mp4"}}
REFUSAL = {
    "detail": [
        {
            "loc": ["body", "prompt"],
            "msg": "The content was flagged.",
            "type": "content_policy_violation",
            "url": "https://docs.fal.ai/errors/#content_policy_violation",
            "ctx": {"max_size": 10, "note": "a secret prompt"},
            "input": "a secret prompt",
        }
    ]
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def test_a_webhook_that_says_ok_is_a_success():
    news = messages.webhook({"request_id": "r", "status": "OK", "payload": VIDEO, "error": None, "new_key": 1})

    assert news == Report("r", Outcome.SUCCEEDED, output=VIDEO)


@pytest.mark.parametrize("payload", [None, [], "text"])
def test_a_success_without_its_payload_is_read_from_the_result(payload):
    body = {"request_id": "r", "status": "OK", "payload": payload, "payload_error": "not serialisable"}

    assert messages.webhook(body) == Unreadable("r")


@pytest.mark.parametrize(
    ("error", "payload", "outcome", "code"),
    [
        ("Invalid status code: 422", REFUSAL, Outcome.FAILED, "content_policy_violation"),
        ("Invalid status code: 500", {"detail": "Internal Server Error"}, Outcome.FAILED, "fal_500"),
        ("Invalid status code: 499", None, Outcome.CANCELED, "canceled"),
        (
            "Invalid status code: 504",
            {"detail": "Request timed out", "error_type": "request_timeout"},
            Outcome.EXPIRED,
            "request_timeout",
        ),
        (
            "Invalid status code: 504",
            {"detail": "x", "error_type": "startup_timeout"},
            Outcome.FAILED,
            "startup_timeout",
        ),
        ("something new", None, Outcome.FAILED, "fal_500"),
        (None, None, Outcome.FAILED, "fal_500"),
    ],
)
def test_a_webhook_that_says_error_tells_how_it_ended(error, payload, outcome, code):
    news = messages.webhook({"request_id": "r", "status": "ERROR", "error": error, "payload": payload})

    assert isinstance(news, Report)
    assert (news.outcome, news.error and news.error["code"]) == (outcome, code)


@given(JSON)
def test_whatever_comes_is_a_report_or_nothing(body):
    assert isinstance(messages.webhook(body), Report | Unreadable | None)


@given(JSON, st.integers(min_value=300, max_value=599))
def test_any_failed_result_becomes_a_whole_error(body, code):
    news = messages.result(code, body, {"x-fal-request-id": "r"}, request_id="r")

    assert isinstance(news, Report)
    assert news.outcome is not Outcome.SUCCEEDED
    assert news.error is not None
    assert {"code", "title", "detail", "retryable"} <= news.error.keys()


def test_echoed_input_is_dropped_and_the_reason_kept():
    error = messages.job_error(422, REFUSAL)

    assert "a secret prompt" not in json.dumps(error)
    assert error["detail"] == "The content was flagged."
    assert error["errors"] == [
        {
            "loc": ["body", "prompt"],
            "msg": "The content was flagged.",
            "type": "content_policy_violation",
            "ctx": {"max_size": 10},
        }
    ]


@pytest.mark.parametrize(
    ("code", "headers", "retryable"),
    [(422, {}, False), (500, {}, True), (503, {}, True), (500, {"x-fal-retryable": "false"}, False)],
)
def test_an_error_says_whether_sending_it_again_may_help(code, headers, retryable):
    news = messages.result(code, {"detail": "x"}, {"x-fal-request-id": "r", **headers}, request_id="r")

    assert isinstance(news, Report)
    assert news.error is not None
    assert news.error["retryable"] is retryable


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (200, {"status": "NOT_FOUND"}),
        (200, {"detail": "maintenance"}),
        (200, None),
        (200, []),
        (404, {"detail": "Not Found"}),
        (404, {"status": "NOT_FOUND"}),
        (500, {"detail": "Internal Server Error"}),
        (503, {"detail": "Service Unavailable"}),
        (302, None),
    ],
)
def test_an_answer_that_names_no_request_is_no_verdict(code, body):
    assert messages.result(code, body, {}, request_id="r") is None


def test_an_answer_about_another_request_is_no_verdict():
    assert messages.result(200, VIDEO, {"x-fal-request-id": "other"}, request_id="r") is None


@pytest.mark.parametrize("error", ["Width must be at most 256", "Invalid status code: 200", "took 499", "422"])
def test_no_other_text_of_an_error_is_a_status_code(error):
    news = messages.webhook({"request_id": "r", "status": "ERROR", "error": error, "payload": {"detail": "x"}})

    assert isinstance(news, Report)
    assert (news.outcome, news.error and news.error["code"]) == (Outcome.FAILED, "fal_500")


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"a\\u0000b": "c\\u0000d"}', {"ab": "cd"}),
        (b'["\\ud800x"]', ["x"]),
        (b"[NaN, Infinity, 1e999]", [None, None, None]),
        (b"[" * 100_000, None),
        (b"<html>", None),
        (b"\xff", None),
    ],
)
def test_what_postgres_cannot_keep_is_left_out(raw, value):
    assert messages.read(raw) == value
