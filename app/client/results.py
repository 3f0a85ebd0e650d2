"""What Callsheet answers, as objects: money as Decimal, times as datetime, and what isn't known yet as None."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from decimal import Decimal
from functools import cache
from types import UnionType
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

ENDINGS: Final = frozenset({"succeeded", "failed", "canceled", "expired"})
"""The statuses that a job keeps."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a job costs, in USD; `charged` is None until it ends, and `held` is set aside until then."""

    currency: str
    seconds: Decimal
    price_per_second: Decimal
    quoted: Decimal
    held: Decimal
    charged: Decimal | None
    measured_seconds: Decimal | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """What an unfinished job waits for."""

    waits_for: str = field(metadata={"name": "for"})
    queue_position: int | None
    expected_at: datetime | None


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job brought no video; `retryable` if the same order may succeed when sent again."""

    code: str
    title: str
    detail: str | None
    retryable: bool
    errors: Any = None


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it was when it was asked about. What isn't a field of its own is in `raw`, as it was answered."""

    id: str
    model: str
    status: str
    """`queued`, `submitting`, `submit_unknown`, `submitted`, `in_progress`, or one of `ENDINGS`."""
    input: dict[str, Any]
    output: dict[str, Any] | None
    error: JobError | None
    waiting: Waiting | None
    metadata: dict[str, str]
    end_user: str | None
    priority: str
    cost: Cost
    attempts: int
    retry_of: str | None
    created_at: datetime
    run_after: datetime | None
    submitted_at: datetime | None
    started_at: datetime | None
    cancel_requested_at: datetime | None
    finished_at: datetime | None
    safe_at: datetime | None
    """Since when `Client.download` has it."""
    deadline_at: datetime | None
    callback_url: str | None
    raw: dict[str, Any] = field(repr=False)

    @property
    def ended(self) -> bool:
        """Whether its status is final."""
        return self.status in ENDINGS

    @property
    def succeeded(self) -> bool:
        """Whether there is a video."""
        return self.status == "succeeded"

    @property
    def video_url(self) -> str | None:
        """Where fal keeps its video, for as long as fal does; None until then, or if the model has no such field."""
        video = (self.output or {}).get("video")
        return video.get("url") if isinstance(video, dict) else None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job: a `status` with a number, or a `progress` in what it waits for."""

    type: str
    id: str | None
    """What to resume with; None for a progress, which isn't kept."""
    number: int | None
    job_id: str
    status: str
    why: str | None
    created_at: datetime
    waiting: Waiting | None

    @property
    def is_ending(self) -> bool:
        """Whether it is its job's last."""
        return self.number is not None and self.status in ENDINGS


@dataclass(frozen=True, slots=True)
class Quote:
    """What an order would cost, in USD: `amount` is held, and charged at most."""

    model: str
    currency: str
    seconds: Decimal
    price_per_second: Decimal
    amount: Decimal
    is_maximum: bool
    verified: bool
    source: str
    note: str | None


@dataclass(frozen=True, slots=True)
class Balance:
    """What is there to spend, in USD; without a `credit_limit`, `available` may go below zero as far as it wants."""

    currency: str
    available: Decimal
    held: Decimal
    spent: Decimal
    credit_limit: Decimal | None


@dataclass(frozen=True, slots=True)
class File:
    """A file for inputs; its `url` goes wherever an input takes an address."""

    id: str
    url: str
    name: str | None
    content_type: str
    size: int
    sha256: str
    created_at: datetime
    expires_at: datetime


def read(shape: type[T], told: Mapping[str, Any]) -> T:
    """
    *told* as a *shape*; what a newer service tells besides is passed over, what an older one doesn't tell is None.

    Raises ValueError or TypeError where *told* is something else.
    """
    given = {name: _converted(hint, told.get(key)) for name, key, hint in _fields(shape)}  # type: ignore[arg-type] # a class is hashable
    return shape(**given)


@cache
def _fields(shape: Any) -> tuple[tuple[str, str, Any], ...]:
    hints = get_type_hints(shape)
    return tuple((each.name, each.metadata.get("name", each.name), hints[each.name]) for each in fields(shape))


def _converted(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    if get_origin(hint) is UnionType:
        hint = get_args(hint)[0]
    if hint is Decimal:
        return Decimal(value)
    if hint is datetime:
        return datetime.fromisoformat(value)
    return read(hint, value) if is_dataclass(hint) and isinstance(hint, type) else value


def job(told: Mapping[str, Any]) -> Job:
    """*told* as a job, which keeps all of it."""
    return read(Job, {**told, "raw": dict(told)})
