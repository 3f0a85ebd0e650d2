"""POST /v1/jobs/batch, /v1/jobs/cancel, /v1/jobs/retry: many jobs with one call, each in its own transaction."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Header, Request
from sqlalchemy import ColumnElement, exists
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app import money, wakeup
from app.db import Database
from app.errors import (
    DATABASE_AWAY,
    AppError,
    BodyTooLarge,
    InvalidRequest,
    NotFound,
    Unavailable,
    problems,
    told,
)
from app.jobs import decisions, ordering, queries, seeing
from app.jobs.bulk_schemas import (
    BatchAnswer,
    BatchAnswers,
    BatchedOrder,
    BulkAnswer,
    BulkAnswers,
    BulkCancel,
    BulkOrder,
    BulkRetry,
    JobBatch,
)
from app.jobs.lifecycle import JobKey
from app.jobs.ordering import Terms
from app.jobs.schemas import JobView
from app.jobs.states import ENDINGS, JobStatus
from app.jobs.tables import Job
from app.tenants.audit import audit
from app.tenants.auth import JobsWriter, Unauthorized
from app.tenants.caller import Caller, Forbidden

log = structlog.get_logger()
router = APIRouter(prefix="/v1/jobs", tags=["Jobs"])

UNFINISHED: Final = frozenset(JobStatus) - ENDINGS
WITHOUT_VIDEO: Final = ENDINGS - {JobStatus.SUCCEEDED}
ERRORS: Final = problems(Unauthorized, Forbidden, BodyTooLarge, InvalidRequest, Unavailable)


@router.post("/batch", operation_id="create_jobs", summary="Order many videos", responses=ERRORS)
async def create(
    request: Request,
    caller: JobsWriter,
    batch: JobBatch,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=240,
            pattern=r"^[\x21-\x7e]+$",
            description="Makes a repeat of the whole batch safe: order number 0 gets the key `<this>.0`, and so on",
            examples=["episode-7"],
        ),
    ] = None,
) -> BatchAnswers:
    """
    Up to 1,000 orders, each accepted or refused on its own, and answered in their order.

    An order that can't be read makes the whole batch a 422 with nothing accepted. With idempotency keys a repeat is
    safe, also after an answer that got lost half-way.
    """
    answers: list[BatchAnswer] = []
    for number, order in enumerate(batch.orders):
        key = order.idempotency_key or (f"{idempotency_key}.{number}" if idempotency_key else None)
        answers.append(await _place(request, caller, order, key))
        if answers[-1].status == Unavailable.status:
            # Waiting for the database once more for each of the rest would only take longer to say the same.
            answers += [answers[-1]] * (len(batch.orders) - len(answers))
            break
    if any(answer.status == 202 for answer in answers):
        request.app.state.announcer.announce(wakeup.DISPATCHER)
    return BatchAnswers(data=answers)


@router.post("/cancel", operation_id="cancel_jobs", summary="Cancel many jobs", responses=ERRORS)
async def cancel(request: Request, caller: JobsWriter, order: BulkCancel) -> BulkAnswers:
    """
    Cancels unfinished jobs, as `POST /v1/jobs/{id}/cancel` does; with `dry_run`, which is the default, only counts
    them.

    Those already asked to be canceled aren't found again, so the same call goes on with the next.
    """

    async def one(session: AsyncSession, job: Job) -> BulkAnswer:
        asked_before = job.cancel_requested_at is not None
        now = await decisions.cancel(session, JobKey(job.tenant_id, job.id))
        if not asked_before:
            audit(session, caller.actor, "job.cancel", job.id, tenant_id=job.tenant_id)
        done = now is not None and now.status == JobStatus.CANCELED
        return BulkAnswer(id=job.id, result="canceled" if done else "cancel_requested", job=None, problem=None)

    unasked = Job.cancel_requested_at.is_(None)
    return await _each(request, caller, order, _meant(order.status, UNFINISHED), unasked, one)


@router.post("/retry", operation_id="retry_jobs", summary="Try many jobs again", responses=ERRORS)
async def retry(request: Request, caller: JobsWriter, order: BulkRetry) -> BulkAnswers:
    """
    Tries jobs again that ended without a video, as `POST /v1/jobs/{id}/retry` does; with `dry_run`, which is the
    default, only counts them and their price then.

    Those that were tried again before aren't found again, so the same call goes on with the next.
    """
    terms = Terms.of(request)

    async def one(session: AsyncSession, job: Job) -> BulkAnswer:
        new_job, _ = await ordering.again(session, caller, terms, job)
        return BulkAnswer(id=job.id, result="retried", job=new_job.id, problem=None)

    other = aliased(Job)
    tried = exists().where(other.tenant_id == Job.tenant_id, other.retry_of == Job.id)
    wanted = ~tried & Job.thinned_at.is_(None)
    if order.error_code is not None:
        wanted &= Job.error["code"].astext == order.error_code
    return await _each(request, caller, order, _meant(order.status, WITHOUT_VIDEO), wanted, one)


async def _place(request: Request, caller: Caller, order: BatchedOrder, key: str | None) -> BatchAnswer:
    db: Database = request.app.state.db

    try:
        job, new = await ordering.place(db, caller, Terms.of(request), order, key)
        return BatchAnswer(status=202 if new else 200, job=JobView.model_validate(job), problem=None)
    except AppError as error:
        refused = error
    except DATABASE_AWAY as error:
        log.warning("database_unavailable", kind=type(error).__name__)
        refused = Unavailable()
    return BatchAnswer(status=refused.status, job=None, problem=told(refused, request))


async def _each(
    request: Request,
    caller: Caller,
    order: BulkOrder,
    statuses: frozenset[JobStatus],
    wanted: ColumnElement[bool],
    act: Callable[[AsyncSession, Job], Awaitable[BulkAnswer]],
) -> BulkAnswers:
    """Find the jobs that are meant, and do *act* to each, unless they are only to be counted."""
    db: Database = request.app.state.db
    meant = order.filter(statuses)
    jobs = await seeing.page(request, caller, meant, limit=order.limit + 1, oldest_first=True, also=[wanted])
    found, more = jobs[: order.limit], len(jobs) > order.limit

    async def handled(job: Job) -> BulkAnswer:
        async def do(session: AsyncSession) -> BulkAnswer:
            now = await queries.get(session, job.tenant_id, job.id)
            if now is None:
                raise NotFound("No job has this id.")
            return await act(session, now)

        try:
            answer = await db.run(do)
        except AppError as error:
            return BulkAnswer(id=job.id, result=None, job=None, problem=told(error, request))
        # At each commit: should the database go away half-way, what was done before is still told.
        request.app.state.announcer.announce()
        return answer

    if order.dry_run:
        data = [BulkAnswer(id=job.id, result=None, job=None, problem=None) for job in found]
    else:
        data = [await handled(job) for job in found]
    amount = money.to_text(sum((job.quoted for job in found), money.ZERO))
    return BulkAnswers(dry_run=order.dry_run, matched=len(found), more=more, amount=amount, data=data)


def _meant(given: list[JobStatus], possible: frozenset[JobStatus]) -> frozenset[JobStatus]:
    """Those of *possible* that were asked for; all of them if none was."""
    if unfit := [status for status in given if status not in possible]:
        raise InvalidRequest(f"`status` can't be {unfit[0]} here; it may be {', '.join(sorted(possible))}.")
    return frozenset(given) or possible
