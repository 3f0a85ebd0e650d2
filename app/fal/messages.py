"""
What fal says, in Callsheet's words (pure).

fal ends everything as COMPLETED and tells success, failure, cancellation and expiry apart only by the
result's own status code or the webhook's `status` and `error`; `Report` is that verdict, read once, here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, Final, Literal

RETRYABLE: Final = frozenset({429, 500, 502, 503, 504})
TITLES: Final[Mapping[str, str]] = {
    "content_policy_violation": "The content was refused by the model's content policy.",
    "no_media_generated": "The model made no video from this input.",
    "generation_timeout": "The model took too long.",
    "request_timeout": "The deadline passed before the model started.",
    "downstream_service_error": "The model's own provider failed.",
    "downstream_service_unavailable": "The model's own provider is unavailable.",
    "image_load_error": "An image of the input could not be read.",
    "file_download_error": "A file of the input could not be downloaded.",
    "file_too_large": "A file of the input is too large.",
    "face_detection_error": "No face was found where the model needs one.",
    "canceled": "The job was canceled.",
    "output_unreadable": "The model finished, but its output could not be read.",
}
LONGEST: Final = 2_000
"""Characters kept of any text that fal wrote."""


class Outcome(StrEnum):
    """How fal says a request ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Accepted:
    """fal has the request and will bill it if it succeeds."""

    request_id: str
    status_url: str
    response_url: str
    cancel_url: str
    queue_position: int | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """
    Proof that fal does not have the request: it said so, or no byte of it was sent.

    *final* when sending it again can't help; *why* says whose turn it is otherwise.
    """

    code: int | None
    why: Literal["account_locked", "fal"]
    error: dict[str, Any]
    final: bool = False
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """The answer got lost: fal may have the request, or not. Sending it again could pay twice."""

    why: str


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an unfinished request stands at fal."""

    running: bool
    queue_position: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """fal's terminal verdict on a request."""

    request_id: str | None
    outcome: Outcome
    output: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    billable_units: Decimal | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The request is over, but this message doesn't carry what came out; the result URL has it."""

    request_id: str | None


def accepted(body: Any) -> Accepted | None:
    """fal's answer to a submit, or None if it isn't one."""
    match body:
        case {
            "request_id": str(request_id),
            "status_url": str(status_url),
            "response_url": str(response_url),
            "cancel_url": str(cancel_url),
        } if request_id:
            return Accepted(request_id, status_url, response_url, cancel_url, _int(body.get("queue_position")))
    return None


def webhook(body: Any) -> Report | Unreadable | None:
    """The verdict in a webhook's body; None if it isn't one of fal's."""
    match body:
        case {"request_id": str(request_id), "status": "OK"}:
            payload = body.get("payload")
            return (
                Report(request_id, Outcome.SUCCEEDED, output=payload)
                if isinstance(payload, dict)
                else Unreadable(request_id)
            )
        case {"request_id": str(request_id), "status": "ERROR"}:
            # "Invalid status code: 422": the only place where a webhook names the result's own code.
            code = _int(str(body.get("error") or "").rpartition(" ")[2])
            return verdict(code or 500, body.get("payload"), {}, request_id=request_id, text=body.get("error"))
    return None


def verdict(
    code: int, body: Any, headers: Mapping[str, str], *, request_id: str | None = None, text: Any = None
) -> Report | Unreadable:
    """The verdict in a result: its status code, body and headers."""
    units = _units(headers.get("x-fal-billable-units"))
    if 200 <= code < 300:
        if not isinstance(body, dict):
            return Unreadable(request_id)
        return Report(request_id, Outcome.SUCCEEDED, output=body, billable_units=units)
    kind = headers.get("x-fal-error-type") or (body.get("error_type") if isinstance(body, dict) else None)
    by_user = headers.get("x-fal-request-timeout-type") == "user" or kind == "request_timeout"
    outcome = Outcome.CANCELED if code == 499 else Outcome.EXPIRED if code == 504 and by_user else Outcome.FAILED
    retryable = headers.get("x-fal-retryable")
    error = job_error(code, body, kind=kind, text=text, retryable=retryable == "true" if retryable else None)
    return Report(request_id, outcome, error=error, billable_units=units)


def job_error(
    code: int | None, body: Any, *, kind: Any = None, text: Any = None, retryable: bool | None = None
) -> dict[str, Any]:
    """
    fal's reason as a job's `error`: `{code, title, detail, retryable, errors?}`.

    Every echoed `input` is dropped: it holds prompts, or megabytes of base64.
    """
    detail = body.get("detail") if isinstance(body, dict) else None
    found = [_fault(item) for item in detail if isinstance(item, dict)] if isinstance(detail, list) else []
    first = found[0] if found else {}
    name = str(kind or first.get("type") or ("canceled" if code == 499 else f"fal_{code or 'unreachable'}"))[:100]
    said = first.get("msg") or (detail if isinstance(detail, str) else None) or text
    error: dict[str, Any] = {
        "code": name,
        "title": TITLES.get(name, "fal could not make this video."),
        "detail": str(said)[:LONGEST] if said else None,
        "retryable": retryable if retryable is not None else code in RETRYABLE,
    }
    return {**error, "errors": found} if found else error


def _fault(item: dict[str, Any]) -> dict[str, Any]:
    context = item.get("ctx")
    fault: dict[str, Any] = {
        "loc": [str(part)[:100] for part in item.get("loc") or () if isinstance(part, str | int)][:20],
        "msg": str(item.get("msg", ""))[:LONGEST],
        "type": str(item.get("type", ""))[:100],
    }
    if isinstance(context, dict):
        fault["ctx"] = {str(k)[:100]: v for k, v in context.items() if isinstance(v, int | float | bool)}
    return fault


def _int(value: Any) -> int | None:
    return int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else None


def _units(value: str | None) -> Decimal | None:
    try:
        units = Decimal(value) if value else None
    except InvalidOperation:
        return None
    return units if units is not None and units.is_finite() and units >= 0 else None
