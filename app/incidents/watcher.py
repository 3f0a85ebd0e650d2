"""Watch for every kind of trouble: open an incident, keep it fresh, close it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import structlog
from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Database, new_id
from app.incidents.kinds import KINDS, MOST, Kind
from app.incidents.tables import Incident
from app.lines import Few

log = structlog.get_logger()

LONGEST: Final = "5s"
"""How long the query of one kind may take."""
WITHIN: Final = f"SET LOCAL statement_timeout = '{LONGEST}'"
OPEN: Final = "SELECT 1 FROM incidents WHERE kind = %(kind)s AND closed_at IS NULL LIMIT 1"
# As `_dismissed` has it, for facts of no subject: those are read from there on.
DISMISSED: Final = """(
    SELECT coalesce(max(until), 'epoch'::timestamptz) FROM incidents
    WHERE kind = %(kind)s AND subject = '' AND dismissed_at IS NOT NULL
)"""
NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def watch(db: Database, kinds: Sequence[Kind] = KINDS) -> list[str]:
    """
    Look for trouble of all *kinds*, each in a transaction of its own; the names of those that couldn't be looked for.

    What can't be looked for stays as it was, and nothing of it is closed.
    """
    blind = []
    for kind in kinds:
        try:
            if not await db.run_few(partial(_is_quiet, kind=kind)):
                await db.run(partial(_look, kind=kind))
        except SQLAlchemyError as error:
            log.error("incidents_unwatched", kind=kind.name, why=type(error).__name__)  # noqa: TRY400 - it quotes rows
            blind.append(kind.name)
    return blind


def glance(kind: Kind) -> str:
    """
    The query that finds some facts of *kind* if there are any: with trouble all are read, but only once.

    One would do; but to find one, Postgres may read all of a table that was full of them when it last looked.
    """
    return kind.sql.replace(f"LIMIT {MOST}", "LIMIT 100").replace("%", "%%").replace(":dismissed", DISMISSED)


async def _is_quiet(ask: Few, kind: Kind) -> bool:
    """Whether nothing of *kind* is wrong and nothing is open: mostly so, and told in one go."""
    named = {"kind": kind.name}
    _, seen, is_open = await ask((WITHIN, {}), (glance(kind), named), (OPEN, named), commit=True)
    return not seen and not is_open


async def _look(session: AsyncSession, kind: Kind) -> None:
    await session.execute(text(WITHIN))
    dismissed = await _dismissed(session, kind)
    seen = (await session.execute(text(kind.sql), {"dismissed": dismissed.get("", NEVER)})).mappings().all()
    # In one order for everybody: watchers that see the same mustn't wait for each other in a circle.
    wrong = sorted(
        (dict(row) for row in seen if row["until"] > dismissed.get(row["subject"], NEVER)),
        key=lambda row: str(row["subject"]),
    )
    for row in wrong:
        await _open(session, kind, row)
    # What a later watcher has seen meanwhile isn't closed on the strength of an older look.
    gone = (
        update(Incident)
        .where(
            Incident.kind == kind.name,
            Incident.closed_at.is_(None),
            Incident.subject.not_in([row["subject"] for row in wrong]),
            Incident.last_seen_at < func.now(),
        )
        .values(closed_at=func.now())
        .returning(Incident.id)
        .execution_options(synchronize_session=False)
    )
    for incident_id in await session.scalars(gone):
        log.info("incident_closed", kind=kind.name, incident_id=str(incident_id))


async def _dismissed(session: AsyncSession, kind: Kind) -> dict[str, datetime]:
    """Up to when the facts of each subject are dismissed."""
    latest = (
        select(Incident.subject, func.max(Incident.until).label("until"))
        .where(Incident.kind == kind.name, Incident.dismissed_at.is_not(None))
        .group_by(Incident.subject)
    )
    rows = await session.execute(latest)
    return {row.subject: row.until for row in rows}


async def _open(session: AsyncSession, kind: Kind, row: dict[str, Any]) -> None:
    """Open an incident, or refresh the one that is open; neither on the strength of an older look."""
    of_it = (Incident.kind == kind.name, Incident.subject == row["subject"])
    closed_meanwhile = select(Incident.id).where(*of_it, Incident.closed_at >= func.now())
    if await session.scalar(closed_meanwhile.limit(1)):
        return
    incident_id = new_id()
    opened = insert(Incident).values(id=incident_id, kind=kind.name, **row)
    fresh = {name: opened.excluded[name] for name in ("since", "until", "jobs", "amount", "detail", "last_seen_at")}
    kept = await session.scalar(
        opened.on_conflict_do_update(
            index_elements=[Incident.kind, Incident.subject],
            index_where=Incident.closed_at.is_(None),
            set_=fresh,
            where=Incident.last_seen_at <= func.now(),
        ).returning(Incident.id)
    )
    if kept == incident_id:
        log.error("incident_opened", kind=kind.name, incident_id=str(incident_id), jobs=row["jobs"])
