"""GET /v1/jobs/{id}/events, /v1/jobs/{id}/events/link, /events/{token}, /v1/events: what happens, as it happens."""

from datetime import timedelta
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Header, Path, Query, Request, Response

from app import clock
from app.db import Database
from app.errors import Fault, InvalidRequest, NotFound, Unavailable, problems
from app.jobs import event_links, news
from app.jobs.event_links import EventLink
from app.jobs.hub import Hub, TooManyOfKey, TooManyStreams, Wanted
from app.jobs.news import BEGINNING, Place
from app.jobs.schemas import JOB_EXAMPLE, EventsLinkView, EventView
from app.jobs.seeing import seen
from app.jobs.states import ENDINGS, JobStatus
from app.media import links, serving
from app.media.serving import LinkExpired
from app.sse import EventStream
from app.tenants import auth
from app.tenants.auth import MayFollow, Unauthorized
from app.tenants.caller import Caller, Forbidden

router = APIRouter(prefix="/v1", tags=["Jobs"])
linked = APIRouter(tags=["Jobs"], include_in_schema=False)

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


def _answers(event_id: str, description: str, *also: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """A stream of events whose data is an EventView, or one of *also*."""
    data = {"anyOf": [{"$ref": f"#/components/schemas/{EventView.__name__}"}, *also]}
    fields = {
        "event": {"type": "string"},
        "id": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": data},
    }
    event = {"type": "object", "properties": fields, "required": ["event", "data"]}
    return {
        200: {
            "model": EventView,
            "description": description,
            "content": {EventStream.media_type: {"example": _example(event_id), "itemSchema": event}},
        }
    }


START: Final[dict[str, Any]] = {"type": "object", "maxProperties": 0, "description": "Of `start`"}
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
    return await _followed(request, caller, job_id, _number(last_event_id or last_event_id_))


@router.get(
    "/jobs/{job_id}/events/link",
    operation_id="get_job_events_link",
    summary="Follow a job from a browser's EventSource",
    responses=problems(Unauthorized, Forbidden, NotFound, InvalidRequest, Unavailable),
)
async def link(request: Request, caller: MayFollow, job_id: Annotated[UUID, Path()]) -> EventsLinkView:
    """
    An address with the same events, for whoever holds it: an `EventSource` can't send `Authorization`.

    It works for 15 minutes, and no longer than the key or token that asked for it. A stream that is open goes on; to
    open one again later, ask for a new link, and hand on `last_event_id` in its query.
    """
    await seen(request, caller, job_id)
    expires_at = clock.now().replace(microsecond=0) + timedelta(seconds=links.VALID_S)
    by_token = caller.token.token_id if caller.token is not None else None
    wanted = EventLink(caller.tenant_id, job_id, caller.key_id, by_token, expires_at)
    token = event_links.token(await serving.key(request), wanted)
    return EventsLinkView(url=f"/events/{token}", expires_at=expires_at)


@linked.get("/events/{token}")
async def follow_link(
    request: Request,
    token: Annotated[str, Path(max_length=200)],
    last_event_id: LastEventId = None,
    last_event_id_: Annotated[LastEventIdInQuery, Query(alias="last_event_id")] = None,
) -> Response:
    """What `follow` streams, for whoever holds a link to it, as long as who asked for the link may follow the job."""
    number = _number(last_event_id or last_event_id_)
    link = event_links.read(await serving.key(request), token)
    if link is None:
        raise NotFound
    if link.expires_at <= clock.now():
        raise LinkExpired
    db: Database = request.app.state.db
    async with db.session() as session:
        caller = await auth.again(session, link.tenant_id, link.key_id, link.token_id)
    if caller is None:
        raise LinkExpired("The key or token that asked for it works no more.")
    return await _followed(request, caller, link.job_id, number)


async def _followed(request: Request, caller: Caller, job_id: UUID, number: int) -> Response:
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
    responses={**_answers(PLACE.encode(), "What happens to jobs, without end", START), **problems(*ERRORS)},
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
