"""What callers may say of an order and of a list beside the necessary."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, TypedDict


class OrderOptions(TypedDict, total=False):
    """What an order may say besides its model and input."""

    metadata: Mapping[str, str]
    """Up to 20 labels, to find the job by."""
    end_user: str
    """Whom of your users the job is for."""
    priority: str
    """`high`, `normal` or `low`: which of the waiting jobs is sent first."""
    run_after: datetime
    """Not sent to fal before this time."""
    deadline_s: float
    """Seconds within which the model must have started."""
    callback_url: str
    """Where to be told how the job ended; see `verify_callback`."""
    max_cost: Decimal | str
    """Refuse the order if its price is above this, in USD."""
    idempotency_key: str
    """Makes sending it again safe, also from another process; made up if none is given."""


class Wanted(TypedDict, total=False):
    """Which jobs to list; all of it must hold."""

    status: str | Sequence[str]
    model: str
    end_user: str
    metadata: Mapping[str, str]
    created_after: datetime
    created_before: datetime
    oldest_first: bool


def body_of(model: str, value: Mapping[str, Any], options: OrderOptions) -> dict[str, Any]:
    """The JSON of an order."""
    body: dict[str, Any] = {"model": model, "input": dict(value), **options}
    body.pop("idempotency_key", None)
    if "run_after" in options:
        body["run_after"] = options["run_after"].isoformat()
    if "max_cost" in options:
        body["max_cost"] = amount_of(options["max_cost"])
    return body


def amount_of(money: Decimal | str) -> str:
    """*money* as Callsheet takes it: never in powers of ten."""
    return format(Decimal(money), "f")


def query_of(wanted: Wanted) -> dict[str, Any]:
    """The query of a list."""
    query: dict[str, Any] = {name: wanted[name] for name in ("status", "model", "end_user") if name in wanted}
    query |= {name: wanted[name].isoformat() for name in ("created_after", "created_before") if name in wanted}
    query |= {f"metadata.{name}": value for name, value in wanted.get("metadata", {}).items()}
    if wanted.get("oldest_first"):
        query["sort"] = "created_at"
    return query
