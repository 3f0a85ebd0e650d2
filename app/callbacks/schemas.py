"""What callers send and see about endpoints and deliveries."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from app.callbacks import signing
from app.callbacks.events import ENDINGS, EventType
from app.callbacks.outcomes import disabling_at
from app.callbacks.queries import Filter
from app.callbacks.replays import MOST
from app.callbacks.tables import Attempt, Delivery, DeliveryStatus, Endpoint

Url = Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=r"^[^\x00]*$")]
Description = Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00]*$")]
Events = Annotated[list[EventType], Field(min_length=1, max_length=len(EventType))]

AT: Final = "2026-11-22T14:31:40Z"
SECRET_EXAMPLE: Final = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"  # noqa: S105 - an example
ENDPOINT_EXAMPLE: Final[dict[str, Any]] = {
    "id": "0197a2b8-7d10-7a42-8c11-5b6f0c1d2e4b",
    "url": "https://example.com/callbacks",
    "description": "production",
    "events": ["job.succeeded", "job.failed"],
    "enabled": True,
    "created_at": AT,
    "old_secret_until": None,
    "failing_since": None,
    "disabling_at": None,
    "disabled_at": None,
    "disabled_why": None,
}
DELIVERY_EXAMPLE: Final[dict[str, Any]] = {
    "id": "0197a2b8-8e20-7b53-9d22-6c7f0c1d2e4b",
    "endpoint_id": ENDPOINT_EXAMPLE["id"],
    "callback_url": None,
    "job_id": "0197a2b8-6c4e-7d31-9f00-3a5f0c1d2e4b",
    "sequence": 5,
    "type": "job.succeeded",
    "status": "delivered",
    "dead_why": None,
    "tries": 1,
    "created_at": AT,
    "next_try_at": None,
    "delivered_at": AT,
}


class NewEndpoint(BaseModel):
    """Where to call, and what about."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"url": ENDPOINT_EXAMPLE["url"], "events": ENDPOINT_EXAMPLE["events"]}]},
    )

    url: Url = Field(description="http or https, public, without user, password or fragment")
    events: Events = Field(default_factory=lambda: list(ENDINGS), description="What to be told; default: each ending")
    description: Description | None = None


class EndpointChange(BaseModel):
    """What to change; what isn't named stays."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"enabled": True}]})

    url: Url | None = None
    events: Events | None = None
    description: Description | None = None
    enabled: bool | None = Field(
        default=None, description="false stops it and gives up what is on its way; true starts it afresh"
    )


class SecretRotation(BaseModel):
    """How to replace a secret."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"overlap_s": 86400}]})

    overlap_s: int = Field(
        default=86_400, ge=0, le=604_800, description="Seconds for which the old secret signs, too; a day by default"
    )


class EndpointView(BaseModel):
    """An endpoint."""

    model_config = ConfigDict(json_schema_extra={"examples": [ENDPOINT_EXAMPLE]})

    id: UUID
    url: str
    description: str | None
    events: list[EventType]
    enabled: bool
    created_at: datetime
    old_secret_until: datetime | None = Field(description="Until when a replaced secret signs, too")
    failing_since: datetime | None = Field(description="Since when nothing has got through")
    disabling_at: datetime | None = Field(description="When it will no longer be called, if that doesn't change")
    disabled_at: datetime | None
    disabled_why: Literal["gone", "failing", "by_caller", "deleted"] | None = Field(
        description="`gone`: it answered 410; `failing`: nothing got through for days; `by_caller`: you did it"
    )

    @classmethod
    def of(cls, row: Endpoint, disable_after_s: float, **more: Any) -> Self:
        """*row* as its tenant sees it."""
        return cls(
            id=row.id,
            url=row.url or "",
            description=row.description,
            events=[EventType(event) for event in row.events],
            enabled=row.disabled_at is None,
            disabling_at=_utc(disabling_at(row, disable_after_s)),
            disabled_why=row.disabled_why,
            **{
                name: _utc(getattr(row, name))
                for name in ("created_at", "old_secret_until", "failing_since", "disabled_at")
            },
            **more,
        )


class EndpointWithSecret(EndpointView):
    """An endpoint and its secret, shown this once."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**ENDPOINT_EXAMPLE, "secret": SECRET_EXAMPLE}]})

    secret: str = Field(description="Signs what it is sent, as Standard Webhooks has it; not shown again")


class EndpointList(BaseModel):
    """All endpoints, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"data": [ENDPOINT_EXAMPLE]}]})

    data: list[EndpointView]


class SecretView(BaseModel):
    """What signs the callbacks to jobs' own `callback_url`s."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"secret": SECRET_EXAMPLE, "old_secret_until": None}]})

    secret: str
    old_secret_until: datetime | None = Field(description="Until when a replaced secret signs, too")

    @classmethod
    def of(cls, row: Endpoint) -> Self:
        """The secret of *row*."""
        return cls(secret=signing.shown(row.secret), old_secret_until=_utc(row.old_secret_until))


class DeliveryView(BaseModel):
    """Something told, or to be told, to one endpoint."""

    model_config = ConfigDict(json_schema_extra={"examples": [DELIVERY_EXAMPLE]})

    id: UUID = Field(description="Its `webhook-id`, the same at each try")
    endpoint_id: UUID | None = Field(description="Null if it goes to the job's own `callback_url`")
    callback_url: str | None
    job_id: UUID | None
    sequence: int | None = Field(description="The number of the job's event; tells which is later")
    type: str
    status: DeliveryStatus
    dead_why: Literal["exhausted", "gone", "endpoint_disabled"] | None = Field(
        description="`exhausted`: a day of tries; `gone`: answered 410; `endpoint_disabled`: it is no longer called"
    )
    tries: int = Field(description="How often it was tried, since it was last replayed")
    created_at: datetime
    next_try_at: datetime | None
    delivered_at: datetime | None

    @classmethod
    def of(cls, row: Delivery, **more: Any) -> Self:
        """*row* as its tenant sees it."""
        return cls(
            id=row.id,
            endpoint_id=row.endpoint_id if row.url is None else None,
            callback_url=row.url,
            job_id=row.job_id,
            sequence=row.sequence,
            type=row.type,
            status=DeliveryStatus(row.status),
            dead_why=row.dead_why,
            tries=row.tries,
            created_at=row.created_at.astimezone(UTC),
            next_try_at=_utc(row.due_at),
            delivered_at=_utc(row.delivered_at),
            **more,
        )


class AttemptView(BaseModel):
    """One try."""

    at: datetime
    status_code: int | None
    error: Literal["refused", "redirected", "timed_out", "unreachable", "broken_off", "address_refused"] | None = Field(
        description="Null if it was taken; `address_refused`: the name leads to an address that isn't called from here"
    )
    body: str = Field(description="The first 2 KB of the answer")
    duration_ms: int

    @classmethod
    def of(cls, row: Attempt) -> Self:
        """*row* as its tenant sees it."""
        return cls(
            at=row.created_at.astimezone(UTC),
            status_code=row.status_code,
            error=row.error,
            body=row.body,
            duration_ms=row.duration_ms,
        )


class DeliveryDetail(DeliveryView):
    """A delivery with what was sent and what came back."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    **DELIVERY_EXAMPLE,
                    "body": '{"type":"job.succeeded","timestamp":"2026-11-22T14:31:40Z","data":{}}',
                    "attempts": [{"at": AT, "status_code": 200, "error": None, "body": "ok", "duration_ms": 41}],
                }
            ]
        }
    )

    body: str = Field(description="The bytes that are sent and signed")
    attempts: list[AttemptView] = Field(description="Oldest first, the last hundred")


class DeliveryPage(BaseModel):
    """A page of deliveries, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"data": [DELIVERY_EXAMPLE], "next_cursor": None}]})

    data: list[DeliveryView]
    next_cursor: str | None = Field(description="Pass as `cursor` for the next page; null on the last")


class ReplayOrder(BaseModel):
    """Which deliveries to tell again."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"endpoint_id": ENDPOINT_EXAMPLE["id"], "status": "dead", "dry_run": True}]},
    )

    endpoint_id: UUID | None = None
    job_id: UUID | None = None
    status: Literal["dead", "delivered"] = Field(default="dead", description="Those given up, or those delivered")
    created_after: AwareDatetime | None = None
    created_before: AwareDatetime | None = None
    dry_run: bool = Field(default=False, description="Only count")
    limit: int = Field(default=MOST, ge=1, le=MOST, description="The most to replay, oldest first")

    def chosen(self) -> Filter:
        """The same as a filter."""
        status = DeliveryStatus(self.status)
        return Filter(self.endpoint_id, self.job_id, status, self.created_after, self.created_before)


class Replayed(BaseModel):
    """How many deliveries a replay is about."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"count": 12, "dry_run": True}]})

    count: int = Field(description="Deliveries made due again, or, in a dry run, that would be; up to `limit`")
    dry_run: bool


def _utc(time: datetime | None) -> datetime | None:
    return time.astimezone(UTC) if time is not None else None
