"""What callers send and see: JobOrder in, JobView out."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator
from sqlalchemy import Row

from app import clock, money
from app.jobs.states import ENDINGS, JobStatus, Priority
from app.jobs.waiting import WaitsFor

Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Label = Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00]*$")]
LabelKey = Annotated[str, StringConstraints(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9_.-]+$")]
Amount = Annotated[str, Field(pattern=r"^\d{1,9}(\.\d{1,6})?$", examples=["2.50"])]
PriorityName = Literal["high", "normal", "low"]
PRIORITIES: Final[Mapping[int, PriorityName]] = {
    Priority.HIGH: "high",
    Priority.NORMAL: "normal",
    Priority.LOW: "low",
}
NO_REASONS: Final[Mapping[UUID, WaitsFor]] = {}

ORDER_EXAMPLE: Final[dict[str, Any]] = {
    "model": "fal-ai/kling-video/o3/4k/text-to-video",
    "input": {
        "prompt": 'A mecha lands on the ground to save the city, and says "I\'m here", in anime style',
        "duration": "5",
        "aspect_ratio": "16:9",
    },
    "metadata": {"campaign": "launch"},
    "end_user": "user-42",
}
JOB_EXAMPLE: Final[dict[str, Any]] = {
    "id": "0197a2b8-6c4e-7d31-9f00-3a5f0c1d2e4b",
    "model": ORDER_EXAMPLE["model"],
    "status": "succeeded",
    "input": ORDER_EXAMPLE["input"],
    "output": {
        "video": {
            "url": "https://v3b.fal.media/files/b/0a8d04e2/output.mp4",
            "content_type": "video/mp4",
            "file_name": "output.mp4",
            "file_size": 13096952,
        }
    },
    "error": None,
    "waiting": None,
    "metadata": {"campaign": "launch"},
    "end_user": "user-42",
    "priority": "normal",
    "cost": {
        "currency": "USD",
        "seconds": "5",
        "price_per_second": "0.42",
        "quoted": "2.10",
        "held": "0.00",
        "charged": "2.10",
        "measured_seconds": "5.042",
    },
    "fal": {"request_id": "764cabcf-b745-4b3e-ae38-1200304cf45b", "queue_position": None},
    "attempts": 1,
    "retry_of": None,
    "created_at": "2026-11-22T14:30:00Z",
    "run_after": None,
    "submitted_at": "2026-11-22T14:30:00.120000Z",
    "started_at": "2026-11-22T14:30:02Z",
    "cancel_requested_at": None,
    "finished_at": "2026-11-22T14:31:40Z",
    "safe_at": "2026-11-22T14:31:42Z",
    "safe_error": None,
    "deadline_at": None,
    "thinned_at": None,
    "callback_url": None,
}


def _within_a_year(time: datetime | None) -> datetime | None:
    if time is None:
        return None
    if abs(time - clock.now()) > timedelta(days=366):
        raise ValueError("must be within a year from now")
    # Postgres knows no offset of sixteen hours or more.
    return time.astimezone(UTC)


class JobOrder(BaseModel):
    """An order for one video."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [ORDER_EXAMPLE]})

    model: Name = Field(description="Id of a model of `GET /v1/models`", examples=[ORDER_EXAMPLE["model"]])
    input: dict[str, Any] = Field(description="The model's own input, as `GET /v1/models/{model}` describes it")
    metadata: dict[LabelKey, Label] = Field(
        default_factory=dict, max_length=20, description="Up to 20 labels of yours, to find the job by"
    )
    end_user: Name | None = Field(default=None, description="Whom of your users the job is for")
    priority: PriorityName = Field(default="normal", description="Which of the waiting jobs is sent first")
    run_after: Annotated[AwareDatetime | None, AfterValidator(_within_a_year)] = Field(
        default=None, description="Not sent to fal before this time"
    )
    deadline_s: float | None = Field(
        default=None, gt=0, le=604_800, description="Seconds within which the model must have started"
    )
    callback_url: Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=r"^[^\x00]*$")] | None = (
        Field(default=None, description="Where to be told how the job ended, signed with `GET /v1/callback-secret`")
    )
    max_cost: Amount | None = Field(default=None, description="Refuse the order if its price is above this, in USD")

    @model_validator(mode="after")
    def _may_run_before_its_deadline(self) -> Self:
        wait_s = (self.run_after - clock.now()).total_seconds() if self.run_after is not None else 0.0
        if self.deadline_s is not None and wait_s >= self.deadline_s:
            raise ValueError("run_after must come before the deadline_s from now has passed")
        return self


class Cost(BaseModel):
    """What a job costs, in USD, as exact decimals."""

    currency: str = Field(examples=["USD"])
    seconds: str = Field(description="Seconds paid for; until the end, those quoted", examples=["5"])
    price_per_second: str = Field(description="As it was when the job was accepted", examples=["0.42"])
    quoted: str = Field(description="The most this job can cost", examples=["2.10"])
    held: str = Field(description="Set aside until the job ends", examples=["2.10"])
    charged: str | None = Field(description="Paid; null until the job ends", examples=["2.10"])
    measured_seconds: str | None = Field(
        description="How long the delivered video really is, read from our copy of it; null if unknown",
        examples=["5.042"],
    )


class Waiting(BaseModel):
    """What an unfinished job waits for."""

    waits_for: WaitsFor = Field(
        alias="for",
        description=(
            "`dispatch`: our own queue; `run_after`: its time; `tenant_limit`, `model_limit`, `account_limit`: as many "
            "of yours, for this model or in all are at fal as may be; `account_locked`: fal takes no requests of ours; "
            "`fal_queue`: requests ahead of it at fal; `fal`: fal works on it or can't be reached; "
            "`fal_answer`: fal was asked and gave no usable answer, not even that it ended, and is asked again; "
            "`video`: its price depends on the length of a video that can't be read just now; "
            "`verdict`: fal's answer to the submit got lost, and only fal's own word settles it"
        ),
    )
    queue_position: int | None = Field(description="Requests ahead of it at fal")
    expected_at: datetime | None = Field(description="When it is likely done, from this deployment's own history")

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)


class FalView(BaseModel):
    """The job as fal knows it."""

    request_id: str | None
    queue_position: int | None


class JobError(BaseModel):
    """Why a job brought no video."""

    code: str = Field(description="fal's own type where it gives one", examples=["content_policy_violation"])
    title: str
    detail: str | None
    retryable: bool = Field(description="Whether the same order may succeed when sent again")
    errors: list[dict[str, Any]] | None = Field(default=None, description="fal's own list, without echoed input")


class SafeError(BaseModel):
    """Why our own copy of the output was given up."""

    code: str = Field(examples=["gone"])
    detail: str = Field(examples=["Its server answers 404."])


class JobView(BaseModel):
    """A job."""

    model_config = ConfigDict(json_schema_extra={"examples": [JOB_EXAMPLE]})

    id: UUID
    model: str
    status: JobStatus
    input: dict[str, Any]
    output: dict[str, Any] | None = Field(description="The model's own output, once `succeeded`")
    error: JobError | None
    waiting: Waiting | None = Field(description="Null once finished")
    metadata: dict[str, str]
    end_user: str | None
    priority: PriorityName
    cost: Cost
    fal: FalView
    attempts: int = Field(description="Times it was handed to fal")
    retry_of: UUID | None = Field(description="The job that this one tries again")
    created_at: datetime
    run_after: datetime | None
    submitted_at: datetime | None
    started_at: datetime | None
    cancel_requested_at: datetime | None = Field(description="When it was asked to be canceled")
    finished_at: datetime | None
    safe_at: datetime | None = Field(
        description="When every file of the output was in our own storage; from then on `/output` leads to it"
    )
    safe_error: SafeError | None = Field(
        description="Why the output could not be copied; what is still at fal is in `output`"
    )
    deadline_at: datetime | None
    thinned_at: datetime | None = Field(
        default=None,
        description="When its input and output, then empty, and its events were let go, long after its end",
    )
    callback_url: str | None

    @classmethod
    def of(cls, job: Any, reasons: Mapping[UUID, WaitsFor] = NO_REASONS) -> Self:
        """*job* as its tenant sees it; *reasons* say what waits for what in our queue."""
        return cls.model_validate(view(job, reasons))


class EventView(BaseModel):
    """Something that happened to a job, or, without a number, a change in what it waits for."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "number": 3,
                    "job_id": JOB_EXAMPLE["id"],
                    "status": "submitted",
                    "why": "fal has it",
                    "created_at": "2026-11-22T14:30:00.120000Z",
                    "waiting": {"for": "fal_queue", "queue_position": 2, "expected_at": "2026-11-22T14:31:40Z"},
                }
            ]
        }
    )

    number: int | None = Field(description="1 for the job's first event; null for progress, which isn't kept")
    job_id: UUID
    status: JobStatus
    why: str | None = Field(description="Why it came to this, for people")
    created_at: datetime
    waiting: Waiting | None = Field(description="What the job waits for as this is sent; null once finished")

    @classmethod
    def of(cls, job_id: UUID, row: Row[Any]) -> Self:
        """A row of `news` as the job's tenant sees it."""
        happened = row.number is not None
        return cls(
            number=row.number,
            job_id=job_id,
            status=JobStatus(row.event_status if happened else row.status),
            why=row.why,
            created_at=(row.created_at if happened else row.at).astimezone(UTC),
            waiting=Waiting.model_validate(waiting) if (waiting := _waiting(row)) else None,
        )


class EventsLinkView(BaseModel):
    """Where to follow a job without a key."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"url": "/events/AZei…", "expires_at": "2026-11-22T14:45:00Z"}]}
    )

    url: str = Field(description="Relative to this service; hand it to nobody else")
    expires_at: datetime


class JobPage(BaseModel):
    """A page of jobs, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"data": [JOB_EXAMPLE], "next_cursor": None}]})

    data: list[JobView]
    next_cursor: str | None = Field(description="Pass as `cursor` for the next page; null on the last")


def view(job: Any, reasons: Mapping[UUID, WaitsFor] = NO_REASONS) -> dict[str, Any]:
    """
    A `JobView` of *job*, any object with a job's columns, before anything looks whether it is one.

    `JobView.of` looks; the doors where that would be most of the work answer with this as it is.
    """
    return {
        "id": job.id,
        "model": job.model,
        "status": JobStatus(job.status),
        "input": job.input,
        "output": job.output,
        "error": _error(job.error),
        "waiting": _waiting(job, reasons.get(job.id)),
        "metadata": job.labels,
        "end_user": job.end_user,
        "priority": PRIORITIES[job.priority],
        "cost": _cost(job),
        "fal": {"request_id": job.fal_request_id, "queue_position": job.queue_position},
        "attempts": job.attempts,
        "retry_of": job.retry_of,
        "created_at": _utc(job.created_at),
        "run_after": _utc(job.run_after),
        "submitted_at": _utc(job.submitted_at),
        "started_at": _utc(job.started_at),
        "cancel_requested_at": _utc(job.cancel_requested_at),
        "finished_at": _utc(job.finished_at),
        "safe_at": _utc(job.safe_at),
        "safe_error": job.safe_error,
        "deadline_at": _utc(job.deadline_at),
        "thinned_at": _utc(job.thinned_at),
        "callback_url": job.callback_url,
    }


def _cost(job: Any) -> dict[str, Any]:
    seconds = job.seconds if job.charged_seconds is None else job.charged_seconds
    return {
        "currency": "USD",
        "seconds": format(seconds.normalize(), "f"),
        "price_per_second": money.to_text(job.price_per_second),
        "quoted": money.to_text(job.quoted),
        "held": money.to_text(job.quoted if job.charged is None else money.ZERO),
        "charged": None if job.charged is None else money.to_text(job.charged),
        "measured_seconds": None if job.measured_seconds is None else format(job.measured_seconds.normalize(), "f"),
    }


def _error(error: dict[str, Any] | None) -> dict[str, Any] | None:
    return {"errors": None, **error} if error else None


def _waiting(job: Any, reason: WaitsFor | None = None) -> dict[str, Any] | None:
    status = JobStatus(job.status)
    if status in ENDINGS:
        return None
    if status is JobStatus.SUBMIT_UNKNOWN:
        waits_for = "verdict"
    elif status is JobStatus.QUEUED:
        scheduled = job.run_after is not None and job.run_after > clock.now()
        waits_for = reason or ("run_after" if scheduled else "dispatch")
    else:
        waits_for = job.waiting_for or "fal"
    return {"for": waits_for, "queue_position": job.queue_position, "expected_at": _utc(job.expected_at)}


def _utc(time: datetime | None) -> datetime | None:
    return time.astimezone(UTC) if time is not None else None
