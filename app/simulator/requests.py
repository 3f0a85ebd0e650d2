"""A request as fal's side knows it: order, state, ending and the webhooks sent about it."""

import asyncio
import json
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, Self

from app.simulator.script import Script


class State(StrEnum):
    """fal has three; failures and cancellations end as COMPLETED too."""

    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"


@dataclass(slots=True)
class Result:
    """What the result URL replays, and what it costs."""

    code: int
    body: str
    units: Decimal = Decimal(0)
    amount: Decimal = Decimal(0)
    error: str | None = None
    error_type: str | None = None
    payload_error: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def output(self) -> Any:
        """The body as the model meant it."""
        return json.loads(self.body)


@dataclass(slots=True)
class Delivery:
    """One attempt to tell the caller."""

    form: str
    at: float
    code: int | None = None
    error: str | None = None


@dataclass(slots=True)
class Request:
    """One accepted, hence payable, order."""

    request_id: str
    app: str
    endpoint: str
    body: str
    submitted_at: float
    webhook_url: str | None = None
    low_priority: bool = False
    start_by: float | None = None
    no_retry: bool = False
    store_io: bool = True
    output_kept_s: float | None = None
    direct: bool = False
    """Called on fal.run: it never waits in the queue."""
    words: dict[str, Any] = field(default_factory=dict)
    """The script as it was told."""

    state: State = State.IN_QUEUE
    gateway_request_id: str = ""
    attempts: int = 1
    started_at: float | None = None
    ended_at: float | None = None
    cancel_asked: bool = False
    result: Result | None = None
    deliveries: list[Delivery] = field(default_factory=list)
    told: bool = False
    """All webhooks about it are done with."""
    payloads_deleted: bool = False

    # Kept in memory only.
    number: int = 0
    script: Script = field(default_factory=Script)
    turn: int = 0
    """Goes up with every move, so that a timer set before it knows that it's stale."""
    reads: int = 0
    changed: asyncio.Event | None = None

    def moved(self) -> None:
        """Let whoever watches look again, and every timer of the earlier state lapse."""
        self.turn += 1
        self.show()

    def show(self) -> None:
        """Let whoever watches look again."""
        if self.changed is not None:
            self.changed.set()
            self.changed = None

    async def change(self) -> None:
        """Wait for the next move."""
        if self.changed is None:
            self.changed = asyncio.Event()
        await self.changed.wait()

    @property
    def ended(self) -> bool:
        return self.state is State.COMPLETED

    def order(self) -> Any:
        """The input, or None where the body isn't JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def to_row(self) -> str:
        """As the book keeps it."""
        return json.dumps({name: getattr(self, name) for name in KEPT}, default=_plain)

    @classmethod
    def from_row(cls, row: str) -> Self:
        """As the book kept it."""
        kept = json.loads(row)
        kept["state"] = State(kept["state"])
        kept["script"] = Script.read(kept["words"])
        kept["deliveries"] = [Delivery(**one) for one in kept["deliveries"]]
        if kept["result"] is not None:
            result = Result(**kept["result"])
            result.units, result.amount = Decimal(result.units), Decimal(result.amount)
            kept["result"] = result
        return cls(**kept)


KEPT: Final = (
    *("request_id", "app", "endpoint", "body", "submitted_at", "webhook_url", "low_priority", "start_by"),
    *("no_retry", "store_io", "output_kept_s", "direct", "words", "state", "gateway_request_id", "attempts"),
    *("started_at", "ended_at", "cancel_asked", "result", "deliveries", "told", "payloads_deleted"),
)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Decimal) else asdict(value)
