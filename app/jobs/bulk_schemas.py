"""What callers send and see of many jobs at once."""

from typing import Any, Final, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from app.errors import Problem
from app.jobs.queries import Filter
from app.jobs.schemas import JOB_EXAMPLE, ORDER_EXAMPLE, JobOrder, JobView, Label, LabelKey, Name
from app.jobs.states import JobStatus

MOST: Final = 1_000
PROBLEM_EXAMPLE: Final[dict[str, Any]] = {
    "type": "urn:callsheet:problem:insufficient_funds",
    "title": "The balance and credit limit don't cover the price of this video.",
    "status": 402,
    "code": "insufficient_funds",
    "detail": "This order would hold 2.10 USD.",
    "request_id": "0197a2b8-6c4e-7d31-9f00-3a5f0c1d2e4b",
    "errors": [],
}
BATCH_EXAMPLE: Final[dict[str, Any]] = {
    "orders": [{**ORDER_EXAMPLE, "idempotency_key": "shot-1"}, {**ORDER_EXAMPLE, "idempotency_key": "shot-2"}]
}
ANSWERS_EXAMPLE: Final[dict[str, Any]] = {
    "data": [
        {"status": 202, "job": JOB_EXAMPLE, "problem": None},
        {"status": 402, "job": None, "problem": PROBLEM_EXAMPLE},
    ]
}
BULK_EXAMPLE: Final[dict[str, Any]] = {
    "dry_run": True,
    "matched": 1,
    "more": False,
    "amount": "2.10",
    "data": [{"id": JOB_EXAMPLE["id"], "result": None, "job": None, "problem": None}],
}


class BatchedOrder(JobOrder):
    """An order for one video, with what makes its repeat safe."""

    idempotency_key: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="As the header `Idempotency-Key` of `POST /v1/jobs`",
    )


class JobBatch(BaseModel):
    """Orders, to be accepted one by one."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [BATCH_EXAMPLE]})

    orders: list[BatchedOrder] = Field(min_length=1, max_length=MOST)


class BatchAnswer(BaseModel):
    """What `POST /v1/jobs` would have answered."""

    status: int = Field(description="202: accepted; 200: the same order came before; else the problem's status")
    job: JobView | None
    problem: Problem | None


class BatchAnswers(BaseModel):
    """One answer for each order, in their order."""

    model_config = ConfigDict(json_schema_extra={"examples": [ANSWERS_EXAMPLE]})

    data: list[BatchAnswer]


class BulkOrder(BaseModel):
    """Which jobs are meant, and whether this is only to count them."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"model": ORDER_EXAMPLE["model"], "dry_run": True}]}
    )

    model: Name | None = None
    end_user: Name | None = None
    metadata: dict[LabelKey, Label] = Field(default_factory=dict, max_length=20)
    created_after: AwareDatetime | None = None
    created_before: AwareDatetime | None = None
    limit: int = Field(default=MOST, ge=1, le=MOST, description="Jobs to look at, the oldest first")
    dry_run: bool = Field(default=True, description="Only count them, and change nothing; send false to act")

    def filter(self, statuses: frozenset[JobStatus]) -> Filter:
        """The jobs it means that are in one of *statuses*."""
        return Filter(statuses, self.model, self.end_user, self.metadata, self.created_after, self.created_before)


class BulkCancel(BulkOrder):
    """Which unfinished jobs to cancel."""

    status: list[JobStatus] = Field(default_factory=list, description="Only these of the unfinished statuses")


class BulkRetry(BulkOrder):
    """Which jobs to try again, of those that ended without a video."""

    status: list[JobStatus] = Field(default_factory=list, description="Only these of `failed`, `canceled`, `expired`")
    error_code: Name | None = Field(default=None, description="Only those that ended with this error")


class BulkAnswer(BaseModel):
    """What was done about one job."""

    id: UUID
    result: Literal["canceled", "cancel_requested", "retried"] | None = Field(description="Null if nothing was done")
    job: UUID | None = Field(description="The new job, after a retry")
    problem: Problem | None = Field(description="Why nothing was done")


class BulkAnswers(BaseModel):
    """What was found, and what was done."""

    model_config = ConfigDict(json_schema_extra={"examples": [BULK_EXAMPLE]})

    dry_run: bool
    matched: int = Field(description="Jobs found, up to `limit`")
    more: bool = Field(description="Whether there are more than these; send the same again once they are done")
    amount: str = Field(description="USD quoted for those found", examples=["2.10"])
    data: list[BulkAnswer]
