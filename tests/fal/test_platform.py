"""fal's request history: all of it, or nothing."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from app.fal.client import Unanswered
from app.fal.messages import Sent
from app.fal.platform import MOST_PAGES, Platform

MODEL = "fal-ai/kling-video/o3/4k/text-to-video"
SENT = datetime(2026, 11, 22, 14, 30, tzinfo=UTC)


def item(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "request_id": name,
        "endpoint_id": MODEL,
        "sent_at": "2026-11-22T14:30:00Z",
        "started_at": None,
        "ended_at": None,
        "status_code": None,
        "json_input": {"prompt": "x"},
        **changes,
    }


def page(*items: dict[str, Any], cursor: str | None = None) -> httpx.Response:
    return httpx.Response(200, json={"items": list(items), "next_cursor": cursor, "has_more": cursor is not None})


async def requests(
    *answers: httpx.Response | Exception, keep: Callable[[Sent], bool] = lambda _: True
) -> tuple[list[Sent], list[httpx.Request]]:
    asked: list[httpx.Request] = []

    def fal(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        answer = answers[min(len(asked), len(answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    http = httpx.AsyncClient(transport=httpx.MockTransport(fal))
    platform = Platform(http, api_url="https://api.fal.ai/v1", key="id:secret")
    return await platform.requests(MODEL, start=SENT, end=SENT + timedelta(minutes=1), keep=keep), asked


async def test_every_page_of_the_history_is_read():
    found, asked = await requests(page(item("r1"), cursor="2"), page(item("r1"), item("r2")))

    assert found == [Sent("r1", SENT, {"prompt": "x"}), Sent("r2", SENT, {"prompt": "x"})]
    assert asked[0].url.path == "/v1/models/requests/by-endpoint"
    assert dict(asked[0].url.params) == {
        "endpoint_id": MODEL,
        "start": "2026-11-22T14:30:00+00:00",
        "end": "2026-11-22T14:31:00+00:00",
        "expand": "payloads",
        "limit": "100",
    }
    assert asked[0].headers["authorization"] == "Key id:secret"
    assert asked[1].url.params["cursor"] == "2"


@pytest.mark.parametrize(
    "missing", [{"json_input": None}, {"sent_at": None}, {"sent_at": "soon"}, {"request_id": None}]
)
async def test_a_request_that_could_not_be_recognised_is_left_out(missing):
    found, _ = await requests(page(item("r1", **missing), item("r2")))

    assert [request.request_id for request in found] == ["r2"]


@pytest.mark.parametrize(
    "broken",
    [
        httpx.Response(401, json={"error": {"type": "authorization_error", "message": "no"}}),
        httpx.Response(429, json={"error": {"type": "rate_limited", "message": "slow down"}}),
        httpx.Response(200, content=b"<html>"),
        httpx.Response(200, json={"items": [], "next_cursor": None, "has_more": True}),
        httpx.ReadTimeout(""),
    ],
)
async def test_a_part_of_the_history_is_none(broken):
    with pytest.raises(Unanswered):
        await requests(page(item("r1"), cursor="2"), broken)


async def test_only_what_is_looked_for_is_kept():
    ours, other = item("r1"), item("r2", json_input={"prompt": "y"})

    found, _ = await requests(page(ours, other), keep=lambda request: request.input == {"prompt": "x"})

    assert [request.request_id for request in found] == ["r1"]


async def test_a_history_without_an_end_is_none():
    with pytest.raises(Unanswered):
        await requests(*[page(item("r1"), cursor="again")] * MOST_PAGES)
