"""What each kind of callback looks like, for the API's document."""

from collections.abc import Mapping
from typing import Any, Final

from app.callbacks.events import EventType
from app.jobs.schemas import JOB_EXAMPLE

NEVER_SENT: Final[dict[str, Any]] = {
    "output": None,
    "fal": {"request_id": None, "queue_position": None},
    "attempts": 0,
    "submitted_at": None,
    "started_at": None,
    "safe_at": None,
}
SUBMITTED: Final = "2026-11-22T14:30:00.120000Z"
STARTED: Final = "2026-11-22T14:30:02Z"
OVER: Final = "2026-11-22T14:31:40Z"


def _waiting(waits_for: str, position: int | None) -> dict[str, Any]:
    return {
        "output": None,
        "cost": _cost(held="2.10", charged=None),
        "waiting": {"for": waits_for, "queue_position": position, "expected_at": OVER},
        "fal": {**JOB_EXAMPLE["fal"], "queue_position": position},
        "finished_at": None,
        "safe_at": None,
    }


def _cost(**changed: Any) -> dict[str, Any]:
    return {**JOB_EXAMPLE["cost"], "measured_seconds": None, **changed}


def _error(code: str, title: str, detail: str | None = None, *, retryable: bool = False) -> dict[str, Any]:
    return {"code": code, "title": title, "detail": detail, "retryable": retryable, "errors": None}


def _example(kind: EventType, at: str, sequence: int, **changed: Any) -> dict[str, Any]:
    job = {**JOB_EXAMPLE, **changed}
    return {"type": kind, "timestamp": at, "data": {"job": job, "sequence": sequence}}


EXAMPLES: Final[Mapping[EventType, dict[str, Any]]] = {
    EventType.SUBMITTED: _example(
        EventType.SUBMITTED, SUBMITTED, 3, status="submitted", started_at=None, **_waiting("fal_queue", 2)
    ),
    EventType.IN_PROGRESS: _example(EventType.IN_PROGRESS, STARTED, 4, status="in_progress", **_waiting("fal", None)),
    EventType.SUCCEEDED: _example(EventType.SUCCEEDED, OVER, 5, cost=_cost(), safe_at=None),
    EventType.FAILED: _example(
        EventType.FAILED,
        OVER,
        5,
        status="failed",
        output=None,
        error=_error(
            "content_policy_violation",
            "fal's content checker refused the request.",
            "The content could not be processed because it was flagged by a content checker.",
        ),
        cost=_cost(charged="0.00"),
        safe_at=None,
    ),
    EventType.CANCELED: _example(
        EventType.CANCELED,
        STARTED,
        2,
        **NEVER_SENT,
        status="canceled",
        error=_error("canceled", "The job was canceled."),
        cost=_cost(charged="0.00"),
        cancel_requested_at=STARTED,
        finished_at=STARTED,
    ),
    EventType.EXPIRED: _example(
        EventType.EXPIRED,
        OVER,
        2,
        **NEVER_SENT,
        status="expired",
        error=_error("deadline_passed", "The deadline passed before the job was sent to fal.", retryable=True),
        cost=_cost(charged="0.00"),
        deadline_at=OVER,
    ),
    EventType.SAFE: _example(EventType.SAFE, JOB_EXAMPLE["safe_at"], 6),
}
