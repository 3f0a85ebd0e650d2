"""From an order as it was sent to a job in the database: replayed, priced, held, accepted."""

import hashlib
import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Self

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncSession
from ssrfguard import Policy

from app import money
from app.billing.prices import Quote
from app.billing.routes import priced
from app.callbacks.routes import check_url
from app.catalog.catalog import Catalog
from app.errors import AppError, Fault
from app.jobs import intake
from app.jobs.intake import Order
from app.jobs.schemas import JobOrder
from app.jobs.states import ENDINGS, JobStatus, Priority
from app.jobs.tables import Job
from app.tenants.auth import Caller


class TooExpensive(AppError):
    """The order's price is above its own max_cost."""

    status, code = 402, "max_cost_exceeded"


class NotFinished(AppError):
    """The job has not ended; only what ended without a video can be tried again."""

    status, code = 409, "not_finished"


class AlreadySucceeded(AppError):
    """The job has its video; for another one send a new order."""

    status, code = 409, "already_succeeded"


@dataclass(frozen=True, slots=True)
class Terms:
    """What an order is judged by: what is sold, and where callbacks may go."""

    catalog: Catalog
    callbacks: Policy

    @classmethod
    def of(cls, request: Request) -> Self:
        """Those of the service that *request* came to."""
        state = request.app.state
        return cls(state.catalog, state.callback_policy)


async def place(
    session: AsyncSession, caller: Caller, terms: Terms, order: JobOrder, idempotency_key: str | None
) -> tuple[Job, bool]:
    """
    The job for *order*, and whether it is new.

    Raises what a caller is told: InvalidRequest (of the callback_url), UnknownModel, InvalidOrder, Unpriced,
    TooExpensive, InsufficientFunds or IdempotencyConflict; then nothing was kept.
    """
    wanted = Order(
        model=order.model,
        input=order.input,
        metadata=order.metadata,
        end_user=order.end_user,
        priority=Priority[order.priority.upper()],
        run_after=order.run_after,
        deadline_s=order.deadline_s,
        callback_url=order.callback_url,
        idempotency_key=idempotency_key,
        digest=_digest(order),
    )
    # Before anything about the order is judged: a repeat brings its job, whatever changed since.
    job = await intake.replay(session, caller, wanted)
    if job is not None:
        return job, False
    if order.callback_url is not None:
        check_url(terms.callbacks, order.callback_url, "/callback_url")
    quote = priced(terms.catalog, order.model, order.input)
    _within(quote, order.max_cost)
    return await intake.accept(session, caller, wanted, quote)


async def again(
    session: AsyncSession, caller: Caller, terms: Terms, job: Job, max_cost: str | None = None
) -> tuple[Job, bool]:
    """
    The job that tries *job* again at today's price, and whether it is new: a job is retried once.

    Raises NotFinished or AlreadySucceeded, and what `place` raises.
    """
    if job.status not in ENDINGS:
        raise NotFinished(f"It is {job.status}.")
    if job.status == JobStatus.SUCCEEDED:
        raise AlreadySucceeded
    wanted = Order(
        model=job.model,
        input=job.input,
        metadata=job.labels,
        end_user=job.end_user,
        priority=Priority(job.priority),
        deadline_s=(job.deadline_at - job.created_at).total_seconds() if job.deadline_at is not None else None,
        callback_url=job.callback_url,
        digest=job.order_digest,
        retry_of=job.id,
    )
    retry = await intake.replay(session, caller, wanted)
    if retry is not None:
        return retry, False
    quote = priced(terms.catalog, job.model, job.input)
    _within(quote, max_cost)
    return await intake.accept(session, caller, wanted, quote)


def _within(quote: Quote, max_cost: str | None) -> None:
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
