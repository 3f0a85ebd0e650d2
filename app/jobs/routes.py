"""Jobs over REST, one at a time: order, list, look at, cancel, retry, fetch."""

import re
from typing import Annotated, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import AwareDatetime
from sqlalchemy.ext.asyncio import AsyncSession

from app import paging, wakeup
from app.billing.ledger import InsufficientFunds
from app.billing.prices import Unpriced
from app.billing.routes import InvalidOrder
from app.catalog.catalog import UnknownModel
from app.db import Database
from app.errors import AppError, BodyTooLarge, InvalidRequest, NotFound, Unavailable, problems
from app.files.inbox import FilesFull
from app.jobs import decisions, looking, ordering, queries, seeing
from app.jobs.decisions import AlreadyFinished
from app.jobs.intake import IdempotencyConflict
from app.jobs.lifecycle import JobKey
from app.jobs.ordering import AlreadySucceeded, NotFinished, Terms, Thinned, TooExpensive
from app.jobs.prefer import Prefer, ended, wait_s
from app.jobs.queries import Filter
from app.jobs.schemas import Amount, JobOrder, JobPage, JobView
from app.jobs.seeing import seen, shown
from app.jobs.states import ENDINGS, JobStatus
from app.jobs.tables import Job
from app.media import queries as media
from app.media.routes import link_to
from app.media.tables import Output
from app.tenants.audit import audit
from app.tenants.auth import JobsWriter, MayCancel, MayCreate, MayRead, Unauthorized
from app.tenants.caller import Forbidden
from app.tenants.minting import TokenOver, TokenSpent

router = APIRouter(prefix="/v1/jobs", tags=["Jobs"])

LONGEST_KEY: Final = 255
KEY: Final = re.compile(r"^[\x21-\x7e]+$")


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
        201: {"model": JobView, "description": "With `Prefer: wait=N`: the job is new, and has ended"},
        **problems(
            Unauthorized,
            Forbidden,
            InsufficientFunds,
            TooExpensive,
            TokenSpent,
            TokenOver,
            UnknownModel,
            IdempotencyConflict,
            FilesFull,
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
            max_length=LONGEST_KEY,
            pattern=KEY.pattern,
            description="Makes a repeat safe: the same key brings back the same job",
            examples=["order-1001"],
        ),
    ] = None,
    prefer: Prefer = None,
) -> JobView:
    """
    Answers 202 once the job, its hold on your balance and its first event are committed.

    With an `Idempotency-Key` a repeat of the same order answers 200 with the same job and the header
    `Idempotent-Replayed: true`; the same key with another order is a conflict.

    With `Prefer: wait=N` a new job that ends within N seconds is answered with 201; one that goes on, with 202 as
    ever. To hang up meanwhile changes nothing about the job.

    Where the input takes an address, write a public one, the `url` of a file of `POST /v1/files`, or a `data:` URI in
    base64, which becomes such a file before the job is kept.
    """
    db: Database = request.app.state.db
    placed, new = await ordering.place(db, caller, Terms.of(request), order, idempotency_key)
    job = JobView.model_validate(placed)
    _ordered(request, response, job, new)
    longest_s = wait_s(prefer)
    if longest_s and job.finished_at is None:
        job = await ended(request, response, caller, job.id, longest_s) or job
        if new and job.finished_at is not None:
            response.status_code = 201
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
    sort: Annotated[
        Literal["created_at", "-created_at"], Query(description="Newest first, or oldest first without the minus")
    ] = "-created_at",
) -> JobPage:
    """
    Newest first, unless `sort` says otherwise. Narrow it by status, model, end user, time of creation, or
    `metadata.<key>=<value>`.
    """
    after = paging.decode(cursor)
    metadata = {
        name.removeprefix("metadata."): value
        for name, value in request.query_params.items()
        if name.startswith("metadata.") and "\x00" not in name + value
    }
    wanted = Filter(status or (), model, end_user, metadata, created_after, created_before)
    oldest_first = sort == "created_at"
    found = await seeing.page(request, caller, wanted, limit=limit + 1, cursor=after, oldest_first=oldest_first)
    jobs, next_cursor = paging.cut(found, limit)
    return JobPage(data=await shown(request, jobs), next_cursor=next_cursor)


@router.get(
    "/{job_id}",
    operation_id="get_job",
    summary="Look at a job",
    responses=problems(Unauthorized, Forbidden, NotFound, InvalidRequest, Unavailable),
)
async def show(
    request: Request,
    response: Response,
    caller: MayRead,
    job_id: Annotated[UUID, Path()],
    prefer: Prefer = None,
) -> JobView:
    """
    What the job is doing, what it waits for, what it costs and, once finished, what came out.

    With `Prefer: wait=N` an unfinished job is answered once it ends, or as it is after N seconds.
    """
    job = JobView.model_validate(await looking.found(request, caller, job_id))
    longest_s = wait_s(prefer)
    if longest_s and job.finished_at is None:
        return await ended(request, response, caller, job_id, longest_s) or job
    return job


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
    request.app.state.announcer.announce()
    if job.status != JobStatus.CANCELED:
        response.status_code = 202
    return JobView.of(job)


@router.post(
    "/{job_id}/retry",
    operation_id="retry_job",
    summary="Try a job again",
    status_code=202,
    responses={
        200: {"model": JobView, "description": "It was tried again before; this is that job"},
        **problems(
            Unauthorized,
            Forbidden,
            InsufficientFunds,
            TooExpensive,
            NotFound,
            NotFinished,
            AlreadySucceeded,
            Thinned,
            InvalidOrder,
            InvalidRequest,
            Unpriced,
            Unavailable,
        ),
    },
)
async def retry(
    request: Request,
    response: Response,
    caller: JobsWriter,
    job_id: Annotated[UUID, Path()],
    max_cost: Annotated[Amount | None, Query(description="Refuse if its price is above this, in USD")] = None,
) -> JobView:
    """
    Makes a new job of one that ended without a video: same input, labels and deadline, at today's price.

    The new job names its origin in `retry_of`. A job is retried once: asking again brings the same new job. To try a
    third time, retry the retry.
    """
    terms = Terms.of(request)
    await seen(request, caller, job_id)

    async def again(session: AsyncSession) -> tuple[JobView, bool] | None:
        job = await queries.get(session, caller.tenant_id, job_id)
        if job is None:
            return None
        new_job, new = await ordering.again(session, caller, terms, job, max_cost)
        return JobView.of(new_job), new

    db: Database = request.app.state.db
    found = await db.run(again)
    if found is None:
        raise NotFound("No job has this id.")
    job, new = found
    _ordered(request, response, job, new)
    return job


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


def _ordered(request: Request, response: Response, job: JobView, new: bool) -> None:
    if new:
        request.app.state.announcer.announce(wakeup.DISPATCHER)
    else:
        response.status_code = 200
        response.headers["Idempotent-Replayed"] = "true"
    response.headers["Location"] = f"/v1/jobs/{job.id}"


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
