"""GET /v1/jobs/{id}/events and GET /v1/events: what happens to jobs, as it happens."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Header, Path, Query, Request, Response

from app.db import Database
from app.errors import Fault, InvalidRequest, NotFound, Unavailable, problems
from app.jobs import news
from app.jobs.hub import Hub, TooManyOfKey, TooManyStreams, Wanted
from app.jobs.news import BEGINNING, Place
from app.jobs.schemas import JOB_EXAMPLE, EventView
from app.jobs.seeing import seen
from app.jobs.states import ENDINGS, JobStatus
from app.sse import EventStream
from app.tenants.auth import MayFollow, Unauthorized
from app.tenants.caller import Forbidden

router = APIRouter(prefix="/v1", tags=["Jobs"])

LastEventId = Annotated[
    str | None,
    Header(max_length=100, description="The id of the last event seen: what came after it follows, nothing twice"),
]
LastEventIdInQuery = Annotated[
    str | None, Query(max_length=100, description="The same, for who can't set a header; the header wins")
]


def _example(event_id: str) -> str:
    event = EventView.model_config["json_schema_extra"]["examples"][0]  # type: ignore[index]
    shown = EventView.model_validate(event).model_dump_json()
    return f"event: status\nid: {event_id}\ndata: {shown}\n\n"


def _answers(event_id: str, description: str) -> dict[int | str, dict[str, Any]]:
    return {
        200: {
            "model": EventView,
            "description": description,
            "content": {EventStream.media_type: {"example": _example(event_id)}},
        }
    }


PLACE: Final = Place(769, UUID(JOB_EXAMPLE["id"]), 3)
ERRORS: Final = (Unauthorized, Forbidden, TooManyOfKey, InvalidRequest, TooManyStreams, Unavailable)


@router.get(
    "/jobs/{job_id}/events",
    operation_id="stream_job_events",
    summary="Follow a job",
    status_code=200,
    response_class=EventStream,
    responses={
        **_answers("3", "What has happened, then what happens, until the job ends"),
        204: {
            "description": "The job has ended, and there is nothing after `Last-Event-ID`, or nothing any more:"
            " don't connect again"
        },
        **problems(NotFound, *ERRORS),
    },
)
async def follow(
    request: Request,
    caller: MayFollow,
    job_id: Annotated[UUID, Path()],
    last_event_id: LastEventId = None,
    last_event_id_: Annotated[LastEventIdInQuery, Query(alias="last_event_id")] = None,
) -> Response:
    """
    Server-Sent Events: the job's history first, then live, and the end of the stream after its last event.

    `status` events are numbered, and their number is the id to resume with. `progress` events tell of changes in
    what it waits for, such as its place in fal's queue; they have no id, aren't kept, and the next one says it anew.

    A browser's `EventSource` connects again when a stream ends; after the last event it then gets 204, which tells
    it to stop. The stream also ends, to be resumed, when the service restarts, when the key or token is over, and for
    who reads too slowly.
    """
    number = _number(last_event_id or last_event_id_)
    job = await seen(request, caller, job_id)
    if job.status in ENDINGS and (number >= job.event_count or job.thinned_at is not None):
        return Response(status_code=204)
    hub: Hub = request.app.state.hub
    return EventStream(hub.follow(caller, job_id, seen=number))


@router.get(
    "/events",
    operation_id="stream_events",
    summary="Follow all jobs",
    status_code=200,
    response_class=EventStream,
    responses={**_answers(PLACE.encode(), "What happens to jobs, without end"), **problems(*ERRORS)},
)
async def follow_all(
    request: Request,
    caller: MayFollow,
    last_event_id: LastEventId = None,
    last_event_id_: Annotated[LastEventIdInQuery, Query(alias="last_event_id")] = None,
    status: Annotated[list[JobStatus] | None, Query(description="Only moves to any of these")] = None,
    model: Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]*$")] = None,
    end_user: Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]*$")] = None,
) -> Response:
    """
    Server-Sent Events of all your jobs from now on, narrowed by status, model, end user or `metadata.<key>=<value>`.

    The first event, `start`, only brings an id, so that even who saw nothing can resume without a gap. With
    `Last-Event-ID` what came after it follows, once; `0` stands for the beginning. An event is shown once all
    transactions that began before its own are over, so a long one in the database delays this stream; the stream of
    one job it doesn't. Within a job go by `number`: of two that came at the same moment the later may be shown first.
    """
    wanted = Wanted(frozenset(status or ()), model, end_user, frozenset(_labels(request)))
    db: Database = request.app.state.db
    async with db.session() as session:
        written = last_event_id or last_event_id_
        at = await news.now_at(session) if written is None else _place(written)
        if not await news.is_ours(session, at):
            raise _unknown_id("It is of another database; begin again without it, or with 0.")
    hub: Hub = request.app.state.hub
    return EventStream(hub.follow_all(caller, at, wanted))


def _labels(request: Request) -> list[tuple[str, str]]:
    return [
        (name.removeprefix("metadata."), value)
        for name, value in request.query_params.items()
        if name.startswith("metadata.")
    ]


def _number(written: str | None) -> int:
    if written is None:
        return 0
    if not (written.isascii() and written.isdigit() and len(written) < 19):
        raise _unknown_id("Use the id of an event of this job, unchanged.")
    return int(written)


def _place(written: str) -> Place:
    if written == "0":
        return BEGINNING
    try:
        return Place.decode(written)
    except ValueError:
        raise _unknown_id("Use the id of an event of this list, unchanged, or 0 for the beginning.") from None


def _unknown_id(detail: str) -> InvalidRequest:
    return InvalidRequest(errors=[Fault(pointer="last-event-id", code="malformed", detail=detail)])
