"""callsheet incidents list, dismiss."""

import getpass
import os
from typing import Annotated
from uuid import UUID

from cyclopts import Parameter
from rich.console import Console
from rich.markup import escape
from sqlalchemy.ext.asyncio import AsyncSession

from app.cli.database import in_database
from app.cli.trouble import Exit, Trouble
from app.errors import NotFound
from app.incidents import queries
from app.incidents.queries import IncidentClosed, Watch
from app.incidents.schemas import IncidentPage, IncidentView
from app.settings import Settings


def show(
    *,
    closed: Annotated[bool, Parameter(negative="")] = False,
    kind: str | None = None,
    limit: int = 20,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """
    List what needs a person; exits 0 if nothing does, 1 if something does or nobody watches, 3 if unreachable.

    Parameters
    ----------
    closed
        List what is over instead, newest first.
    kind
        Only this kind.
    limit
        How many.
    as_json
        Print JSON, and nothing else.
    """
    if not 1 <= limit <= 1000:
        raise Trouble("--limit: must be between 1 and 1000")
    watch_s = Settings.read().watch_s

    async def read(session: AsyncSession) -> tuple[list[IncidentView], Watch]:
        rows = await queries.page(session, limit=limit, kind=kind, is_open=not closed)
        return [IncidentView.of(row) for row in rows], await queries.watched(session, watch_s)

    found, watch = in_database(read)
    if as_json:
        page = IncidentPage(
            data=found, next_cursor=None, watching=watch.going_on, watched_at=watch.at, blind=watch.blind
        )
        print(page.model_dump_json(indent=2))
    else:
        _tell(found, watch, closed=closed)
    return Exit.FOUND if not watch.going_on or watch.blind or (found and not closed) else Exit.DONE


def dismiss(incident_id: UUID, /, *, reason: str) -> None:
    """
    Close an incident that can't heal by itself; it opens again for new trouble only.

    Parameters
    ----------
    incident_id
        The incident's id, from `callsheet incidents list`.
    reason
        Why; kept with the incident, and your name.
    """
    if not reason.strip():
        raise Trouble("--reason: must say why nothing needs to be done about it any more")

    async def decide(session: AsyncSession) -> IncidentView:
        try:
            return IncidentView.of(await queries.dismiss(session, incident_id, by=_user(), why=reason.strip()))
        except NotFound:
            raise Trouble(f"There is no incident {incident_id}.") from None
        except IncidentClosed as error:
            raise Trouble(str(error)) from None

    print(f"Dismissed: {in_database(decide).title}")


def _user() -> str:
    try:
        return f"user {getpass.getuser()}"
    except (KeyError, OSError):
        # A container's user may have a number and no name.
        return f"user {os.getuid()}"


def _tell(found: list[IncidentView], watch: Watch, *, closed: bool) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for each in found:
        about = f" ({each.subject})" if each.subject else ""
        console.print(f"[bold]{escape(each.title + about)}[/]  {each.kind}  {each.id}")
        more = "at least " if each.detail.get("at_least") else ""
        jobs = f"{more}{each.jobs:,} job{'' if each.jobs == 1 else 's'}, {each.amount} USD"
        console.print(f"  since {each.since:%Y-%m-%d %H:%M} UTC, {jobs}")
        if each.dismissed:
            told = f"  dismissed by {each.dismissed.by}: {each.dismissed.reason}"
            console.print(told, markup=False)
        elif each.closed_at:
            console.print(f"  over since {each.closed_at:%Y-%m-%d %H:%M} UTC")
        else:
            console.print(f"  {each.todo}", markup=False)
        for job_id in each.detail.get("jobs", []):
            console.print(f"    {job_id}")
    if not watch.going_on:
        last = f"since {watch.at:%Y-%m-%d %H:%M} UTC" if watch.at else "yet"
        console.print(f"Nobody has watched for incidents {last}: start a worker with callsheet work.", style="bold red")
    elif watch.blind:
        console.print(f"These couldn't be watched for: {', '.join(watch.blind)}.", style="bold red")
    elif not found and not closed:
        console.print("All is well: nothing needs a person.", style="bold green")
