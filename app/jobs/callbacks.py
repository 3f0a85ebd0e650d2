"""What callers are told about a job: which events, and what a callback says of its moment."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Header
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from app.callbacks import outbox
from app.callbacks.events import EventType, body_of
from app.jobs.callback_examples import EXAMPLES
from app.jobs.schemas import JobView

ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    410: {"description": "Don't call this address again"},
    "default": {"description": "It isn't taken, and comes again later"},
}


class JobNews(BaseModel):
    """A job as it was when it happened, and the number of what happened."""

    job: JobView
    sequence: int = Field(description="Grows with each event of the job; of two, the higher is the later")


class Callback(BaseModel):
    """What a callback says. Its bytes are signed as https://www.standardwebhooks.com describes."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLES[EventType.SUCCEEDED]]})

    type: EventType
    timestamp: datetime = Field(description="When it happened")
    data: JobNews


@dataclass(frozen=True, slots=True)
class Told:
    """Something that happened to *job*, any object with a job's columns as they are now."""

    job: Any
    listeners: Sequence[UUID]
    kind: str
    at: datetime
    sequence: int

    def news(self) -> outbox.News:
        """What its listeners are told."""
        data = JobNews(job=JobView.of(self.job), sequence=self.sequence).model_dump_json()
        return outbox.News(
            tenant_id=self.job.tenant_id,
            listeners=self.listeners,
            kind=self.kind,
            body=body_of(self.kind, self.at.astimezone(UTC).isoformat().replace("+00:00", "Z"), data),
            job_id=self.job.id,
            sequence=self.sequence,
            callback_url=self.job.callback_url,
        )


async def tell(session: AsyncSession, told: Iterable[Told]) -> None:
    """Write down who is to be told what, in the caller's transaction."""
    await outbox.add(session, [each.news() for each in told])


def safe(job: Any, listeners: Sequence[UUID]) -> Told:
    """That the *job*'s files are safe; its number follows that of the job's last event."""
    return Told(job, listeners, EventType.SAFE, job.safe_at, job.event_count + 1)


def describe(webhooks: APIRouter) -> None:
    """Add each kind of callback to the `webhooks` of the OpenAPI document."""
    told = {
        EventType.SUBMITTED: "fal has the job",
        EventType.IN_PROGRESS: "fal runs the job",
        EventType.SUCCEEDED: "The video is there, and charged",
        EventType.FAILED: "There will be no video, and nothing is charged",
        EventType.CANCELED: "The job was canceled, and nothing is charged",
        EventType.EXPIRED: "The deadline passed before the job was sent",
        EventType.SAFE: "Every file of the output is in our own storage",
    }

    async def callback(
        body: Callback,
        webhook_id: Annotated[str, Header(description="The same at each try")],
        webhook_timestamp: Annotated[str, Header(description="When this try was made, in seconds since 1970")],
        webhook_signature: Annotated[str, Header(description="A signature for each secret in force, as `v1,<base64>`")],
    ) -> None:
        """
        Posted to your endpoints that ask for it, and each ending to the job's own `callback_url`.

        Answer 2xx within 15 seconds. Anything else is tried again for about a day; 410 stops the endpoint. It may
        come twice: `webhook-id` stays the same. Verify `webhook-signature` over the raw bytes, with any library of
        standardwebhooks.com.
        """

    for kind, summary in told.items():
        webhooks.add_api_route(
            kind,
            callback,
            methods=["POST"],
            operation_id=kind,
            summary=summary,
            tags=["Callbacks"],
            status_code=204,
            response_description="It is taken, as by any other 2xx",
            responses=ANSWERS,
            openapi_extra={"requestBody": {"content": {"application/json": {"example": EXAMPLES[kind]}}}},
        )
