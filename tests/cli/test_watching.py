"""`jobs submit --watch`: followed by events, and asked where those can't be had."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import httpx
import pytest

from app.client import Client, Job, Unauthorized
from app.client.results import job as job_of
from app.jobs.schemas import JOB_EXAMPLE, EventView
from app.sse import line

# In the package the name stands for the command.
jobs = import_module("app.cli.jobs")
EVENT: dict[str, Any] = EventView.model_config["json_schema_extra"]["examples"][0]  # type: ignore[index,assignment]
BUSY = httpx.Response(503, headers={"Retry-After": "0"})
AWAY = httpx.ConnectError("")


def job_at(status: str) -> Job:
    return job_of({**JOB_EXAMPLE, "status": status})


def watched(*replies: httpx.Response | Exception) -> tuple[Job, list[str]]:
    """The job that was watched while the service gave *replies*, and the paths it was asked for."""
    coming: Iterator[httpx.Response | Exception] = iter(replies)
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path.removeprefix(f"/v1/jobs/{JOB_EXAMPLE['id']}"))
        reply = next(coming)
        if isinstance(reply, Exception):
            raise reply
        return reply

    with Client(
        "http://callsheet", "key", retries=0, http=httpx.Client(transport=httpx.MockTransport(answer))
    ) as client:
        return jobs._follow(client, job_at("queued"), quiet=True), asked


def stream(*statuses: str) -> httpx.Response:
    lines = [
        line(EventView.model_validate({**EVENT, "number": n, "status": status}).model_dump_json(), event="status", id=n)
        for n, status in enumerate(statuses, 1)
    ]
    return httpx.Response(200, stream=httpx.ByteStream(b"".join(lines)))


def told(status: str) -> httpx.Response:
    return httpx.Response(200, json={**JOB_EXAMPLE, "status": status})


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(jobs, "POLL_S", 0.0)


def test_events_lead_to_the_end():
    job, asked = watched(stream("queued", "submitted", "succeeded"), told("succeeded"))

    assert (job.status, asked) == ("succeeded", ["/events", ""])


def test_a_service_that_is_away_or_has_no_stream_to_spare_is_asked_on():
    job, asked = watched(AWAY, AWAY, BUSY, told("submitted"), BUSY, told("failed"))

    assert (job.status, asked) == ("failed", ["/events", ""] * 3)


def test_a_key_that_is_over_is_told():
    with pytest.raises(Unauthorized):
        watched(httpx.Response(401))
