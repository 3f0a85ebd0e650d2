"""From an order as it was sent to a job in the database: replayed, priced, held, accepted."""

import hashlib
import json
from dataclasses import replace
from decimal import Decimal
from typing import Any, NamedTuple, Self

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncSession
from ssrfguard import Policy

from app import money
from app.billing.prices import Quote
from app.billing.routes import InvalidOrder, input_faults, priced
from app.billing.schemas import QuoteOrder
from app.callbacks.routes import check_url
from app.catalog.catalog import Catalog
from app.db import Database
from app.errors import AppError, BodyTooLarge, Fault
from app.files import addresses, lifting
from app.files.inbox import Inbox
from app.files.lifting import Lifted
from app.gather import Gatherer
from app.jobs import intake
from app.jobs.accepting import Accepting
from app.jobs.order import Order
from app.jobs.schemas import JobOrder, view
from app.jobs.states import ENDINGS, JobStatus, Priority
from app.jobs.tables import Job
from app.tenants.caller import Caller, Forbidden


class TooExpensive(AppError):
    """The order's price is above its own max_cost."""

    status, code = 402, "max_cost_exceeded"


class NotFinished(AppError):
    """The job has not ended; only what ended without a video can be tried again."""

    status, code = 409, "not_finished"


class AlreadySucceeded(AppError):
    """The job has its video; for another one send a new order."""

    status, code = 409, "already_succeeded"


class Thinned(AppError):
    """The job ended so long ago that its input was let go; send a new order."""

    status, code = 410, "thinned"


class Terms(NamedTuple):
    """What an order is judged by: what is sold, where callbacks may go, and what files and bytes it may bring."""

    catalog: Catalog
    callbacks: Policy
    inbox: Inbox
    body_bytes: int
    """What an order may have apart from data: URIs: it stays in the job's row."""
    data_uri_bytes: int
    sent_bytes: int | None
    """How large the request is that the order came in, if it said so."""
    accepting: Gatherer[Accepting, Any]
    """Where orders come together."""

    @classmethod
    def of(cls, request: Request) -> Self:
        """Those of the service that *request* came to."""
        state = request.app.state
        said = request.headers.get("content-length", "")
        return cls(
            state.catalog,
            state.callback_policy,
            state.inbox,
            body_bytes=state.settings.body_limit_bytes,
            data_uri_bytes=state.settings.data_uri_limit_bytes,
            sent_bytes=int(said) if said.isdecimal() else None,
            accepting=state.accepting,
        )


async def quoted(db: Database, caller: Caller, terms: Terms, order: QuoteOrder) -> Quote:
    """
    The price of an order that `place` would take, as far as its model and input go.

    Raises Forbidden (by its token), BodyTooLarge, UnknownModel, InvalidOrder with every fault, or Unpriced.
    """
    _check_model(caller, order.model)
    _check_size(terms, order)
    if faults := await _faults(db, caller, terms, order):
        raise InvalidOrder(errors=faults)
    return priced(terms.catalog, order.model, order.input)


async def place(
    db: Database, caller: Caller, terms: Terms, order: JobOrder, idempotency_key: str | None
) -> tuple[dict[str, Any], bool]:
    """
    The `view` of the job for *order*, and whether it is new.

    Files that the order brings are stored before its transaction begins. Raises what a caller is told: Forbidden (by
    its token), BodyTooLarge, InvalidRequest (of the callback_url), UnknownModel, InvalidOrder, Unpriced, TooExpensive,
    TokenSpent, TokenOver, FilesFull, InsufficientFunds, IdempotencyConflict or Unavailable; then nothing was kept.
    """
    try:
        return await _place(db, caller, terms, order, idempotency_key)
    except InvalidOrder as refused:
        # Whatever it ran into first, it is told of everything.
        raise InvalidOrder(errors=await _faults(db, caller, terms, order) or refused.errors) from None


async def _place(
    db: Database, caller: Caller, terms: Terms, order: JobOrder, idempotency_key: str | None
) -> tuple[dict[str, Any], bool]:
    order = _narrowed(caller, order)
    wanted = Order(
        model=order.model,
        input=order.input,
        metadata=order.metadata,
        end_user=order.end_user,
        priority=Priority[order.priority.upper()],
        run_after=order.run_after,
        deadline_s=order.deadline_s,
        callback_url=order.callback_url,
        idempotency_key=_own_key(caller, idempotency_key),
        digest=_digest(order) if idempotency_key is not None else b"",
    )
    _check_size(terms, order)
    if caller.token is None and not addresses.any_in(order.input):
        job = await _accepted_with_others(caller, terms, wanted, order.max_cost)
        if job is not None:
            return view(job), True
    return await _place_alone(db, caller, terms, wanted, order.max_cost)


async def _accepted_with_others(caller: Caller, terms: Terms, wanted: Order, max_cost: str | None) -> Any | None:
    """The job, as its row has it; None if the order has to be looked at more closely."""
    try:
        quote = _judged(terms, wanted, max_cost)
    except AppError:
        # Unless it is a repeat: that brings its job, whatever changed since.
        return None
    return await terms.accepting(Accepting(caller, wanted, quote))


async def _place_alone(
    db: Database, caller: Caller, terms: Terms, wanted: Order, max_cost: str | None
) -> tuple[dict[str, Any], bool]:
    """Like `place`, with a transaction for this order alone."""

    async def replayed(session: AsyncSession) -> dict[str, Any] | None:
        job = await intake.replay(session, caller, wanted)
        return view(job) if job is not None else None

    async def accept(session: AsyncSession) -> tuple[dict[str, Any], bool]:
        # Before anything about the order is judged: a repeat brings its job, whatever changed since.
        repeated = await replayed(session)
        if repeated is not None:
            return repeated, False
        quote = _judged(terms, wanted, max_cost)
        job, new = await _accept(session, caller, terms, wanted, quote, lifted)
        return view(job), new

    if addresses.data_uris(wanted.input):
        # The same look twice, so that a repeat, or an order that can't be taken, doesn't store files for nothing.
        if (job := await db.run(replayed)) is not None:
            return job, False
        _judged(terms, wanted, max_cost)
    bringing = lifting.lifted(
        terms.inbox, caller.tenant_id, wanted.input, end_user=wanted.end_user, limit=terms.data_uri_bytes
    )
    async with bringing as lifted:
        return await db.run(accept)


async def again(
    session: AsyncSession, caller: Caller, terms: Terms, job: Job, max_cost: str | None = None
) -> tuple[Job, bool]:
    """
    The job that tries *job* again at today's price, and whether it is new: a job is retried once.

    Raises NotFinished, AlreadySucceeded or Thinned, and what `place` raises.
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
    if job.thinned_at is not None:
        raise Thinned
    quote = _judged(terms, wanted, max_cost)
    return await _accept(session, caller, terms, wanted, quote, Lifted(job.input))


def _narrowed(caller: Caller, order: JobOrder) -> JobOrder:
    """*order* as the caller's token lets it be; a key's as it is. Raises Forbidden."""
    _check_model(caller, order.model)
    if caller.token is not None and order.callback_url is not None:
        # What goes there is signed in the tenant's name.
        raise Forbidden("This token may not say where callbacks go; leave callback_url out.")
    if caller.token is None:
        return order
    return order.model_copy(update={"end_user": caller.acting_for(order.end_user)})


def _check_model(caller: Caller, model: str) -> None:
    if not caller.may_use(model):
        raise Forbidden("This token may not order from this model.")


def _own_key(caller: Caller, idempotency_key: str | None) -> str | None:
    """An end user's keys are apart from everybody else's; no key of a header has a space."""
    if caller.token is None or idempotency_key is None:
        return idempotency_key
    return f"{caller.token.end_user} {idempotency_key}"


async def _accept(
    session: AsyncSession, caller: Caller, terms: Terms, wanted: Order, quote: Quote, lifted: Lifted
) -> tuple[Job, bool]:
    """Where every order ends: its files are kept for as long as the job needs them, and the job is accepted."""
    await lifting.settle(session, terms.inbox, caller, lifted)
    return await intake.accept(session, caller, replace(wanted, input=lifted.input), quote)


def _judged(terms: Terms, wanted: Order, max_cost: str | None) -> Quote:
    """The price of an order that may be taken. Raises InvalidRequest, or TooExpensive if it is above *max_cost*."""
    if wanted.callback_url is not None and wanted.retry_of is None:
        check_url(terms.callbacks, wanted.callback_url, "/callback_url")
    quote = priced(terms.catalog, wanted.model, wanted.input)
    if max_cost is not None and quote.amount > Decimal(max_cost):
        raise TooExpensive(
            f"It would cost {money.to_text(quote.amount)} USD.",
            errors=[Fault(pointer="/max_cost", code="too_low", detail="Raise it, or order fewer seconds.")],
        )
    return quote


async def _faults(db: Database, caller: Caller, terms: Terms, order: JobOrder | QuoteOrder) -> list[Fault]:
    """Everything wrong with the order's input, by its model's schema and by the files it brings or names."""
    by_schema = input_faults(terms.catalog, order.model, order.input)
    return by_schema + await lifting.faults(db, caller, order.input, limit=terms.data_uri_bytes)


def _check_size(terms: Terms, order: JobOrder | QuoteOrder) -> None:
    """Raises BodyTooLarge for an order that its job's row shouldn't hold."""
    if terms.sent_bytes is not None and terms.sent_bytes <= terms.body_bytes:
        return
    size = len(order.model_dump_json().encode()) - sum(len(place.text) for place in addresses.data_uris(order.input))
    if size > terms.body_bytes:
        raise BodyTooLarge(f"Apart from data: URIs, an order may have up to {terms.body_bytes:,} bytes.")


def _digest(order: JobOrder) -> bytes:
    """Tells one order from another, whatever the spelling of its JSON."""
    body = order.model_dump(mode="json", exclude_defaults=True, include=set(JobOrder.model_fields))
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).digest()
