"""GET /v1/admin/incidents, POST /v1/admin/incidents/{id}/dismiss."""

from datetime import UTC
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from sqlalchemy.ext.asyncio import AsyncSession

from app import paging
from app.db import Database
from app.errors import BodyTooLarge, InvalidRequest, NotFound, Unavailable, problems
from app.incidents import queries
from app.incidents.queries import IncidentClosed, Place
from app.incidents.schemas import IncidentPage, IncidentView, Reason
from app.tenants.auth import Admin, Unauthorized
from app.tenants.caller import Forbidden

router = APIRouter(prefix="/v1/admin/incidents", tags=["Operations"])

OPEN, CLOSED = "o", "c"


@router.get(
    "",
    operation_id="list_incidents",
    summary="List what needs a person",
    responses=problems(Unauthorized, Forbidden, InvalidRequest, Unavailable),
)
async def index(
    request: Request,
    caller: Admin,
    limit: paging.Limit = 20,
    cursor: paging.Cursor = None,
    kind: Annotated[str | None, Query(max_length=100, pattern=r"^[^\x00]*$", description="Only this kind")] = None,
    is_open: Annotated[bool | None, Query(alias="open", description="Only open ones, or only closed ones")] = None,
) -> IncidentPage:
    """
    Incidents of all tenants: the open ones first, then those that are over, newest first in both.

    They open and close by themselves, as a worker watches for them; `watching` says whether one does.
    """
    db: Database = request.app.state.db
    after = _place(cursor)

    async def read(session: AsyncSession) -> IncidentPage:
        rows = await queries.page(session, limit=limit + 1, after=after, kind=kind, is_open=is_open)
        watch = await queries.watched(session, request.app.state.watch_s)
        shown, more = paging.cut(rows, limit)
        return IncidentPage(
            data=[IncidentView.of(row) for row in shown],
            next_cursor=more and (CLOSED if shown[-1].closed_at else OPEN) + more,
            watching=watch.going_on,
            watched_at=watch.at and watch.at.astimezone(UTC),
            blind=watch.blind,
        )

    return await db.run(read)


@router.post(
    "/{incident_id}/dismiss",
    operation_id="dismiss_incident",
    summary="Dismiss what can't heal by itself",
    responses=problems(Unauthorized, Forbidden, NotFound, IncidentClosed, BodyTooLarge, InvalidRequest, Unavailable),
)
async def dismiss(
    request: Request,
    caller: Admin,
    incident_id: Annotated[UUID, Path(description="The incident's id")],
    reason: Reason,
) -> IncidentView:
    """
    Close an incident by decision: it stays closed for what it was about, and opens again for new trouble only.

    Who did it and why is kept. Doing it again changes nothing.
    """
    db: Database = request.app.state.db

    async def decide(session: AsyncSession) -> IncidentView:
        by = f"key {caller.key_id}"
        return IncidentView.of(await queries.dismiss(session, incident_id, by=by, why=reason.reason))

    return await db.run(decide)


def _place(cursor: str | None) -> Place | None:
    """Where the page before ended: its cursor also says among which ones. Raises InvalidRequest."""
    if cursor is None:
        return None
    among, rest = cursor[:1], cursor[1:]
    last = paging.decode(rest if among in {OPEN, CLOSED} else "-")
    assert last is not None, "a cursor that isn't None has an id"  # noqa: S101
    return Place(among == OPEN, last)
