"""From an order as it was sent to a job in the database: replayed, priced, held, accepted."""

import hashlib
import json
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncSession

from app import money
from app.billing.prices import Quote
from app.billing.routes import priced
from app.catalog.catalog import Catalog
from app.errors import AppError, Fault
from app.jobs import intake
from app.jobs.intake import Order
from app.jobs.schemas import JobOrder
from app.jobs.states import Priority
from app.jobs.tables import Job
from app.tenants.auth import Caller


class TooExpensive(AppError):
    """The order's price is above its own max_cost."""

    status, code = 402, "max_cost_exceeded"


async def place(
    session: AsyncSession, caller: Caller, catalog: Catalog, order: JobOrder, idempotency_key: str | None
) -> tuple[Job, bool]:
    """
    The job for *order*, and whether it is new.

    Raises what a caller is told: UnknownModel, InvalidOrder, Unpriced, TooExpensive, InsufficientFunds or
    IdempotencyConflict; then nothing was kept.
    """
    wanted = Order(
        model=order.model,
        input=order.input,
        metadata=order.metadata,
        end_user=order.end_user,
        priority=Priority[order.priority.upper()],
        run_after=order.run_after,
        deadline_s=order.deadline_s,
        idempotency_key=idempotency_key,
        digest=_digest(order),
    )
    # Before anything about the order is judged: a repeat brings its job, whatever changed since.
    job = await intake.replay(session, caller, wanted)
    if job is not None:
        return job, False
    quote = priced(catalog, order.model, order.input)
    within(quote, order.max_cost)
    return await intake.accept(session, caller, wanted, quote)


def within(quote: Quote, max_cost: str | None) -> None:
    """Raises TooExpensive if the price is above *max_cost*."""
    if max_cost is not None and quote.amount > Decimal(max_cost):
        raise TooExpensive(
            f"It would cost {money.to_text(quote.amount)} USD.",
            errors=[Fault(pointer="/max_cost", code="too_low", detail="Raise it, or order fewer seconds.")],
        )


def _digest(order: JobOrder) -> bytes:
    """Tells one order from another, whatever the spelling of its JSON."""
    body = order.model_dump(mode="json", exclude_defaults=True, include=set(JobOrder.model_fields))
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).digest()
