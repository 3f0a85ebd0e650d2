"""
What fal says, in Callsheet's words (pure).

fal ends everything as COMPLETED and tells success, failure, cancellation and expiry apart only by the
result's own status code or the webhook's `status` and `error`; `Report` is that verdict, read once, here.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
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
}
STATUS_CODE: Final = re.compile(r"Invalid status code: ([45]\d\d)")
UNKEEPABLE: Final = re.compile("[\x00\ud800-\udfff]")
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
    status_url: str | None = None
    response_url: str | None = None
    cancel_url: str | None = None
    queue_position: int | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """
    Proof that fal does not have the request: it said so, or no byte of it was sent.

    *final* when sending it again can't help. *Why* says whom it is about otherwise: the account, which is out of
    money or whose key isn't good, or this request.
    """

    code: int | None
    why: Literal["account_locked", "key_refused", "fal"]
    error: dict[str, Any]
    final: bool = False
    retry_after_s: float | None = None

    @property
    def parks(self) -> bool:
        """Whether nothing else is taken on this account either."""
        return self.why != "fal"


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

    request_id: str
    outcome: Outcome
    output: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


class CancelAnswer(StrEnum):
    """What fal says to a cancel; whatever it says, the request's own end settles it."""

    GONE = "OK"
    REQUESTED = "CANCELLATION_REQUESTED"
    TOO_LATE = "ALREADY_COMPLETED"
    UNKNOWN = "NOT_FOUND"


@dataclass(frozen=True, slots=True)
class Sent:
    """A request in fal's history: when it was sent, and with what input, where that was kept."""

    request_id: str
    sent_at: datetime
    input: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The request is over, but this message doesn't carry what came out; the result URL has it."""

    request_id: str


def read(raw: bytes) -> Any:
    """
    The JSON in *raw*, or None if it is none.

    What JSON allows but Postgres can't keep (NUL, halves of surrogate pairs), or Python reads though JSON
    doesn't allow it (NaN), is left out: an output must not make its job impossible to settle.
    """
    try:
        return _keepable(json.loads(raw, parse_constant=lambda _: None))
    except (ValueError, RecursionError):
        return None


def _keepable(value: Any) -> Any:
    match value:
        case str():
            return UNKEEPABLE.sub("", value)
        case list():
            return [_keepable(item) for item in value]
        case dict():
            return {UNKEEPABLE.sub("", name): _keepable(item) for name, item in value.items()}
        case float() if not math.isfinite(value):
            return None
    return value


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


def cancel_answer(code: int, body: Any) -> CancelAnswer | None:
    """What fal's answer to a cancel says, or None if it says nothing."""
    match body:
        case {"status": str(word)} if word in list(CancelAnswer):
            return CancelAnswer(word)
    # An older shape says only that it was heard.
    return CancelAnswer.REQUESTED if code in {200, 202} else None


def sent(item: Any) -> Sent | None:
    """A request of fal's history, or None where it doesn't say enough to be recognised."""
    match item:
        case {"request_id": str(request_id), "sent_at": str(sent_at), "json_input": dict(model_input)}:
            try:
                time = datetime.fromisoformat(sent_at)
            except ValueError:
                return None
            return Sent(request_id, time if time.tzinfo else time.replace(tzinfo=UTC), model_input)
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
            # The only place where a webhook names the result's own code; any other text is no code.
            found = STATUS_CODE.fullmatch(str(body.get("error")))
            code = int(found[1]) if found else 500
            return _failure(code, body.get("payload"), {}, request_id=request_id, text=body.get("error"))
    return None


def result(code: int, body: Any, headers: Mapping[str, str], *, request_id: str) -> Report | None:
    """
    The verdict in a result's status code, body and headers; None if it isn't the model's own answer.

    Between us and the model stand gateways, whose errors and maintenance pages must neither refund nor
    charge anything. The model's own answer names its request; without that, only what nobody but a model
    or fal's queue would say counts.
    """
    named = headers.get("x-fal-request-id")
    if named is not None and named != request_id:
        return None
    if 200 <= code < 300:
        if named is None and not (isinstance(body, dict) and not body.keys() & {"status", "detail", "error"}):
            return None
        output = body if isinstance(body, dict) else {"value": body}
        return Report(request_id, Outcome.SUCCEEDED, output=output) if body is not None else None
    typed = isinstance(body, dict) and (isinstance(body.get("detail"), list) or "error_type" in body)
    if named is None and not (typed or code == 499):
        return None
    return _failure(code, body, headers, request_id=request_id)


def _failure(code: int, body: Any, headers: Mapping[str, str], *, request_id: str, text: Any = None) -> Report:
    kind = headers.get("x-fal-error-type") or (body.get("error_type") if isinstance(body, dict) else None)
    by_user = headers.get("x-fal-request-timeout-type") == "user" or kind == "request_timeout"
    outcome = Outcome.CANCELED if code == 499 else Outcome.EXPIRED if code == 504 and by_user else Outcome.FAILED
    retryable = headers.get("x-fal-retryable")
    error = job_error(code, body, kind=kind, text=text, retryable=retryable == "true" if retryable else None)
    return Report(request_id, outcome, error=error)


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
