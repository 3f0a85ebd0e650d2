"""An order as the jobs' code knows it: checked against the model's schema, and no longer HTTP."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from app.jobs.states import Priority


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller asks for."""

    model: str
    input: dict[str, Any]
    metadata: dict[str, str] = field(default_factory=dict)
    end_user: str | None = None
    priority: Priority = Priority.NORMAL
    run_after: datetime | None = None
    deadline_s: float | None = None
    callback_url: str | None = None
    idempotency_key: str | None = None
    digest: bytes = b""
    """Tells it from other orders; empty if it has no idempotency key, for then nobody asks."""
    retry_of: UUID | None = None
