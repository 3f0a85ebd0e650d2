"""Reading an event stream, whatever it is cut into."""

import json
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import sse
from app.client import NotFound, Unavailable, Unreachable
from app.client.following import Following, Lines
from app.jobs.schemas import EventView

EXAMPLE: dict[str, Any] = EventView.model_config["json_schema_extra"]["examples"][0]  # type: ignore[index,assignment]


def line(number: int | None, status: str = "submitted", **more: object) -> bytes:
    told = {**EXAMPLE, "number": number, "status": status, **more}
    kind = "progress" if number is None else "status"
    return sse.line(json.dumps(told, ensure_ascii=False), event=kind, id=number)


STREAM = (
    b": hello\n\n"
    + line(1)
    + line(None)
    + b":\n"
    + line(2, why="two\u2028lines\x85")
    + b": still here\n\n"
    + line(3, "failed")
)


def following(after: str | None = None, job_id: str | None = "job") -> Following:
    return Following(job_id, after, retries=2)


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_events_are_the_same_wherever_the_bytes_are_cut(cuts):
    places = [0, *sorted(cuts), len(STREAM)]
    reader = following()

    events = [event for start, end in pairwise(places) for event in reader.hear(STREAM[start:end])]

    assert [(event.type, event.id, event.number) for event in events] == [
        ("status", "1", 1),
        ("progress", None, None),
        ("status", "2", 2),
        ("status", "3", 3),
    ]
    assert events[2].why == "two\u2028lines\x85"
    assert reader.is_over()


@given(st.integers(0, len(STREAM)))
def test_after_a_cut_it_goes_on_after_the_last_whole_event(cut):
    reader = following()
    seen = [event.id for event in reader.hear(STREAM[:cut]) if event.id]

    asked = reader.ask()
    # What came of an event before the cut is forgotten.
    rest = [event.id for event in reader.hear(b"".join(line(n) for n in range(len(seen) + 1, 4))) if event.id]

    assert asked.headers.get("Last-Event-ID") == (seen[-1] if seen else None)
    assert seen + rest == ["1", "2", "3"]


def test_lines_may_end_as_in_windows():
    assert list(Lines().feed(b"event: status\r\nid: 1\r\ndata: {}\r\n\r\n")) == [
        {"event": "status", "id": "1", "data": "{}"}
    ]


def test_the_beginning_of_the_stream_of_all_jobs_is_only_a_place_to_resume_at():
    reader = following(job_id=None)

    assert list(reader.hear(sse.line("{}", event="start", id="AAA"))) == []
    assert [event.status for event in reader.hear(line(3, "failed"))] == ["failed"]
    assert not reader.is_over()
    assert following(job_id=None, after="AAA").ask().headers["Last-Event-ID"] == "AAA"


def test_an_event_makes_it_patient_again_and_silence_does_not():
    reader = following()
    for number in (1, 2, 3):
        reader.lost(httpx.ReadError(""))
        reader.ended()
        list(reader.hear(line(number)))

    reader.lost(httpx.ReadError(""))
    reader.ended()
    with pytest.raises(Unreachable):
        reader.lost(httpx.ReadTimeout(""))


def test_a_refusal_that_passes_is_waited_for_and_another_is_told():
    reader = following()

    assert reader.refused(httpx.Response(503, headers={"Retry-After": "3"})) == 3.0
    with pytest.raises(NotFound):
        reader.refused(httpx.Response(404))
    reader.refused(httpx.Response(429))
    with pytest.raises(Unavailable):
        reader.refused(httpx.Response(503))


def test_no_content_says_that_nothing_comes_any_more():
    reader = following("7")

    assert reader.connected(204)
    assert reader.is_over()
    assert reader.ended() == 0.0
