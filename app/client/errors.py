"""What can go wrong, as exceptions: nobody answered, Callsheet refused, or the job didn't come out."""

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx

from app.client.results import Job


class CallsheetError(Exception):
    """Something went wrong; *idempotency_key* is that of the order that was being sent, if one was."""

    idempotency_key: str | None = None

    @property
    def retry_after_s(self) -> float | None:
        """When to try again, in seconds, where Callsheet says so."""
        return None


class Unreachable(CallsheetError):
    """
    No answer came, or none that makes sense.

    An order may have been taken all the same: `create` with the error's `idempotency_key` finds that out, and orders
    once.
    """


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with what was sent, and how to mend it."""

    pointer: str
    code: str
    detail: str


class Refused(CallsheetError):
    """Callsheet answered with a problem; branch on its *code*."""

    def __init__(self, answer: httpx.Response) -> None:
        told = _problem(answer)
        self.status = answer.status_code
        self.code: str = str(told.get("code") or f"http_{self.status}")
        self.title: str = str(told.get("title") or f"The service answers {self.status}.")
        self.detail: str | None = told.get("detail")
        self.request_id: str | None = told.get("request_id") or answer.headers.get("x-request-id")
        """Names the request in the service's logs."""
        self.errors = tuple(
            Fault(str(fault.get("pointer")), str(fault.get("code")), str(fault.get("detail")))
            for fault in told.get("errors") or ()
        )
        self._retry_after = answer.headers.get("retry-after")
        lines = [f"{self.title} {self.detail}" if self.detail else self.title]
        super().__init__("\n".join(lines + [f"  {fault.pointer}: {fault.detail}" for fault in self.errors]))

    @property
    def retry_after_s(self) -> float | None:
        """When to try again, in seconds, where Callsheet says so."""
        return seconds_of(self._retry_after)


class Unauthorized(Refused):
    """The key is missing, unknown, expired or revoked."""


class PaymentRequired(Refused):
    """The balance, a token's bound or the order's own `max_cost` doesn't cover the price."""


class Forbidden(Refused):
    """The key or token may not do this."""


class NotFound(Refused):
    """There is no such thing, or not for this key."""


class Conflict(Refused):
    """It can't be done in its present state, or this idempotency key belongs to another order."""


class InvalidOrder(Refused):
    """What was sent isn't taken; `errors` has every fault."""


class TooManyRequests(Refused):
    """The key or address asks too often."""


class Unavailable(Refused):
    """Callsheet can't work just now."""


KINDS: Final[dict[int, type[Refused]]] = {
    401: Unauthorized,
    402: PaymentRequired,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    422: InvalidOrder,
    429: TooManyRequests,
}


class JobNotSucceeded(CallsheetError):
    """The job ended without a video; *job* has its `error`, and nothing was charged unless it says so."""

    def __init__(self, job: Job) -> None:
        why = f": {job.error.title} {job.error.detail or ''}".rstrip() if job.error else ""
        super().__init__(f"Job {job.id} is {job.status}{why}")
        self.job = job


class StillRunning(CallsheetError, TimeoutError):
    """The job goes on, and is only no longer waited for; *job* is how it was last."""

    def __init__(self, job: Job) -> None:
        super().__init__(f"Job {job.id} is still {job.status}; `wait` again, or `cancel` it.")
        self.job = job


def refusal(answer: httpx.Response) -> Refused:
    """*answer*, which must have been read, as the exception that tells it."""
    kind = Unavailable if answer.status_code >= 500 else KINDS.get(answer.status_code, Refused)
    return kind(answer)


def seconds_of(retry_after: str | None) -> float | None:
    """The seconds that a Retry-After asks for, written as such or as a date; None if it asks for none."""
    if retry_after is None:
        return None
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        at = parsedate_to_datetime(retry_after)
        return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return None


def _problem(answer: httpx.Response) -> dict[str, Any]:
    try:
        told = answer.json()
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
