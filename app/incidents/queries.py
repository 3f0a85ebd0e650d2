"""Reads and the one write of a person: a page of incidents, when they were last watched for, a dismissal."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app import clock
from app.chores import Chore
from app.errors import AppError, NotFound
from app.incidents.tables import Incident

BROKEN: Final = "verify_failed"
"""The kind of incident that a broken promise is."""
CHORE: Final = "watch"
"""The chore that watches for incidents."""
MISSED: Final = 4
"""Rounds that may be missed, by a pause or a restart, before it counts as nobody watching."""


class IncidentClosed(AppError):
    """The incident has closed by itself; there is nothing left to dismiss."""

    status, code = 409, "incident_closed"


class Place(NamedTuple):
    """Where a page ended: after the incident *id*, which was listed among the open or the closed ones."""

    among_open: bool
    id: UUID


class Watch(NamedTuple):
    """When incidents were last watched for, which kinds couldn't be, and whether somebody still does."""

    at: datetime | None
    blind: list[str]
    going_on: bool


async def promise_is_broken(session: AsyncSession) -> bool:
    """Whether an incident is open because the last proof found a broken promise."""
    broken = select(Incident.id).where(Incident.kind == BROKEN, Incident.closed_at.is_(None)).limit(1)
    return await session.scalar(broken) is not None


async def page(
    session: AsyncSession,
    *,
    limit: int,
    after: Place | None = None,
    kind: str | None = None,
    is_open: bool | None = None,
) -> Sequence[Incident]:
    """Up to *limit* incidents, the open ones first, newest first in both, after the place *after*."""
    found: list[Incident] = []
    for among_open in (True, False):
        if is_open is (not among_open) or (after and after.among_open < among_open):
            continue
        wanted = select(Incident).where(Incident.closed_at.is_(None) if among_open else Incident.closed_at.is_not(None))
        if kind is not None:
            wanted = wanted.where(Incident.kind == kind)
        if after and after.among_open == among_open:
            wanted = wanted.where(Incident.id < after.id)
        found += await session.scalars(wanted.order_by(Incident.id.desc()).limit(limit - len(found)))
    return found


async def watched(session: AsyncSession, every_s: float) -> Watch:
    """Whether somebody watches, every *every_s* seconds: without that, no open incident means nothing."""
    chore = await session.get(Chore, CHORE)
    if chore is None or chore.done_at is None:
        return Watch(None, [], going_on=False)
    ago_s = (clock.now() - chore.done_at).total_seconds()
    return Watch(chore.done_at, (chore.result or {}).get("blind", []), going_on=ago_s < max(60.0, MISSED * every_s))


async def dismiss(session: AsyncSession, incident_id: UUID, *, by: str, why: str) -> Incident:
    """
    Close an incident for good, by a person's decision: it opens again for new facts only.

    Doing it again changes nothing. Raises NotFound, or IncidentClosed if the trouble went away by itself.
    """
    once = update(Incident).where(Incident.id == incident_id, Incident.closed_at.is_(None))
    dismissed = await session.scalar(
        once.values(closed_at=func.now(), dismissed_at=func.now(), dismissed_by=by, dismissed_why=why)
        .returning(Incident)
        .execution_options(populate_existing=True)
    )
    incident = dismissed or await session.get(Incident, incident_id)
    if incident is None:
        raise NotFound
    if incident.dismissed_at is None:
        raise IncidentClosed
    return incident
