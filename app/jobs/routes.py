"""POST /v1/jobs, GET /v1/jobs, GET /v1/jobs/{id}, GET /v1/jobs/{id}/output, POST /v1/jobs/{id}/cancel."""

import hashlib
import json
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import AwareDatetime
from sqlalchemy.ext.asyncio import AsyncSession

from app import money, paging
from app.billing.ledger import InsufficientFunds
from app.billing.prices import Quote, Unpriced
from app.billing.routes import InvalidOrder, priced
from app.catalog.catalog import UnknownModel
from app.db import Database
from app.errors import AppError, BodyTooLarge, Fault, InvalidRequest, NotFound, Unavailable, problems
from app.jobs import decisions, intake, queries
from app.jobs.decisions import AlreadyFinished
from app.jobs.intake import IdempotencyConflict, Order
from app.jobs.lifecycle import JobKey
from app.jobs.schemas import JobOrder, JobPage, JobView
from app.jobs.states import ENDINGS, JobStatus, Priority
from app.jobs.tables import Job
from app.media import queries as media
from app.media.routes import link_to
from app.media.tables import Output
from app.tenants.audit import audit
from app.tenants.auth import MayCancel, MayCreate, MayRead, Unauthorized
from app.tenants.caller import Caller, Forbidden
from app.tenants.minting import TokenOver, TokenSpent

router = APIRouter(prefix="/v1/jobs", tags=["Jobs"])


class TooExpensive(AppError):
    """The order's price is above its own max_cost."""

    status, code = 402, "max_cost_exceeded"


class NotSafeYet(AppError):
    """The output isn't in our own storage yet; ask again in a moment."""

    status, code = 409, "not_safe_yet"


class NoOutput(AppError):
    """This job has no such file in our own storage, and will have none."""

    status, code = 404, "no_output"


@router.post(
    "",
    operation_id="create_job",
    summary="Order a video",
    status_code=202,
    responses={
        200: {"model": JobView, "description": "The same order came before; this is its job"},
        **problems(
            Unauthorized,
            Forbidden,
            InsufficientFunds,
            TooExpensive,
            TokenSpent,
            TokenOver,
            UnknownModel,
            IdempotencyConflict,
            BodyTooLarge,
            InvalidOrder,
            InvalidRequest,
            Unpriced,
            Unavailable,
        ),
    },
)
async def create(
    request: Request,
    response: Response,
    caller: MayCreate,
    order: JobOrder,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            pattern=r"^[\x21-\x7e]+$",
            description="Makes a repeat safe: the same key brings back the same job",
            examples=["order-1001"],
        ),
    ] = None,
) -> JobView:
    """
    Answers 202 once the job, its hold on your balance and its first event are committed.

    With an `Idempotency-Key` a repeat of the same order answers 200 with the same job and the header
    `Idempotent-Replayed: true`; the same key with another order is a conflict.
    """
    if not caller.may_use(order.model):
        raise Forbidden("This token may not order from this model.")
    order = order.model_copy(update={"end_user": caller.acting_for(order.end_user)})
    wanted = Order(
        model=order.model,
        input=order.input,
        metadata=order.metadata,
        end_user=order.end_user,
        priority=Priority[order.priority.upper()],
        run_after=order.run_after,
        deadline_s=order.deadline_s,
        idempotency_key=_own_key(caller, idempotency_key),
        digest=_digest(order),
    )
    db: Database = request.app.state.db

    async def accept(session: AsyncSession) -> tuple[JobView, bool]:
        # Before anything about the order is judged: a repeat brings its job, whatever changed since.
        job, new = await intake.replay(session, caller, wanted), False
        if job is None:
            quote = priced(request.app.state.catalog, order.model, order.input)
            _within(order, quote)
            job, new = await intake.accept(session, caller, wanted, quote)
        return JobView.of(job), new

    job, new = await db.run(accept)
    if new:
        request.app.state.announcer.announce()
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    if not new:
        response.status_code = 200
        response.headers["Idempotent-Replayed"] = "true"
    return job


@router.get(
    "",
    operation_id="list_jobs",
    summary="List jobs",
    responses=problems(Unauthorized, Forbidden, InvalidRequest, Unavailable),
)
async def index(
    request: Request,
    caller: MayRead,
    limit: paging.Limit = 20,
    cursor: paging.Cursor = None,
    status: Annotated[list[JobStatus] | None, Query(description="Any of these statuses")] = None,
    model: Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]*$")] = None,
    end_user: Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]*$")] = None,
    created_after: AwareDatetime | None = None,
    created_before: AwareDatetime | None = None,
) -> JobPage:
    """
    Newest first. Narrow it by status, model, end user, time of creation, or `metadata.<key>=<value>`.
    """
    before = paging.decode(cursor)
    metadata = {
        name.removeprefix("metadata."): value
        for name, value in request.query_params.items()
        if name.startswith("metadata.") and "\x00" not in name + value
    }
    filters: dict[str, Any] = {
        "before": before,
        "statuses": status or (),
        "model": model,
        "end_user": end_user,
        "created_after": created_after,
        "created_before": created_before,
    }
    db: Database = request.app.state.db
    if metadata:
        # Row-level security would keep Postgres from the index on labels: so it finds ids, and shows nothing.
        async with db.session() as session:
            filters["ids"] = await queries.labeled(session, caller, metadata, limit=limit + 1, **filters)
    async with db.reading_as(caller.tenant_id) as session:
        jobs = await queries.page(session, caller, limit=limit + 1, **filters)
    shown, next_cursor = paging.cut(jobs, limit)
    return JobPage(data=[JobView.of(job) for job in shown], next_cursor=next_cursor)


@router.get(
    "/{job_id}",
    operation_id="get_job",
    summary="Look at a job",
    responses=problems(Unauthorized, Forbidden, NotFound, InvalidRequest, Unavailable),
)
async def show(request: Request, caller: MayRead, job_id: Annotated[UUID, Path()]) -> JobView:
    """What the job is doing, what it waits for, what it costs and, once finished, what came out."""
    return JobView.of(await seen(request, caller, job_id))


@router.post(
    "/{job_id}/cancel",
    operation_id="cancel_job",
    summary="Cancel a job",
    response_description="fal never had it: it is `canceled`, free of charge",
    responses={
        202: {"model": JobView, "description": "fal has it, or may have it, and is asked to stop; it may still finish"},
        **problems(Unauthorized, Forbidden, NotFound, AlreadyFinished, InvalidRequest, Unavailable),
    },
)
async def cancel(request: Request, response: Response, caller: MayCancel, job_id: Annotated[UUID, Path()]) -> JobView:
    """
    A job that was never sent is canceled at once and costs nothing.

    Else the answer is 202 with `cancel_requested_at` set: the cancel is passed on to fal, and the job ends as fal
    says. One that runs already may still finish, and is then charged. Asking again is safe.
    """
    before = await seen(request, caller, job_id)

    async def decide(session: AsyncSession) -> Job | None:
        job = await decisions.cancel(session, JobKey(caller.tenant_id, job_id))
        if before.cancel_requested_at is None:
            audit(session, caller.actor, "job.cancel", job_id, tenant_id=caller.tenant_id)
        return job

    job = await request.app.state.db.run(decide)
    if job is None:
        raise NotFound("No job has this id.")
    if job.status != JobStatus.CANCELED:
        request.app.state.announcer.announce()
        response.status_code = 202
    return JobView.of(job)


@router.get(
    "/{job_id}/output",
    operation_id="get_job_output",
    summary="Fetch the video",
    status_code=307,
    response_class=Response,
    responses={
        307: {
            "description": "The kept file is there, for whoever holds the link",
            "headers": {"Location": {"description": "Works for 15 minutes", "schema": {"type": "string"}}},
        },
        **problems(Unauthorized, Forbidden, NotFound, NoOutput, NotSafeYet, InvalidRequest, Unavailable),
    },
)
async def output(
    request: Request,
    caller: MayRead,
    job_id: Annotated[UUID, Path()],
    number: Annotated[int, Query(ge=1, le=64, description="Which file, if the output has several")] = 1,
) -> Response:
    """
    Leads to our own copy of the result by a signed link that needs no key and works for 15 minutes.

    The file answers Range, so players can seek in it. Until the copy is safe this is a conflict, and says what
    it waits for.
    """
    db: Database = request.app.state.db
    job = await seen(request, caller, job_id)
    async with db.reading_as(caller.tenant_id) as session:
        file = await media.get(session, caller.tenant_id, job_id, number)
    location = await link_to(request, _safe(job, file))
    return Response(status_code=307, headers={"Location": location})


async def seen(request: Request, caller: Caller, job_id: UUID) -> Job:
    """The job, as the database shows it to *caller*. Raises NotFound if it isn't there or not for *caller* to see."""
    db: Database = request.app.state.db
    async with db.reading_as(caller.tenant_id) as session:
        job = await queries.seen(session, caller, job_id)
    if job is None:
        raise NotFound("No job has this id.")
    return job


def _own_key(caller: Caller, idempotency_key: str | None) -> str | None:
    """An end user's keys are apart from everybody else's; no key of a header has a space."""
    if caller.token is None or idempotency_key is None:
        return idempotency_key
    return f"{caller.token.end_user} {idempotency_key}"


def _within(order: JobOrder, quote: Quote) -> None:
    if order.max_cost is not None and quote.amount > Decimal(order.max_cost):
        raise TooExpensive(
            f"It would cost {money.to_text(quote.amount)} USD.",
            errors=[Fault(pointer="/max_cost", code="too_low", detail="Raise it, or order fewer seconds.")],
        )


def _digest(order: JobOrder) -> bytes:
    """Tells one order from another, whatever the spelling of its JSON."""
    body = order.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).digest()


def _safe(job: Job, file: Output | None) -> Output:
    if JobStatus(job.status) not in ENDINGS:
        raise NotSafeYet(f"The job is {job.status}.", headers={"Retry-After": "5"})
    if file is None:
        raise NoOutput(f"The job is {job.status}." if job.output is None else "The output names no such file.")
    if file.safe_at is not None:
        return file
    why = f" Last time: {file.error['detail']}" if file.error else ""
    if file.due_at is None:
        raise NoOutput(f"Copying it was given up.{why}")
    raise NotSafeYet(f"It is being copied from fal.{why}", headers={"Retry-After": "1"})
