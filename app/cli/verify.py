"""callsheet verify: prove the promises from the database, and from fal's books."""

import asyncio
from typing import Annotated

from cyclopts import Parameter
from rich import box
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import InterfaceError, OperationalError

from app.cli.database import database_url
from app.cli.running import Running
from app.cli.tables import show_table
from app.cli.trouble import Exit, Trouble
from app.db import Database
from app.http import new_client
from app.settings import Settings
from app.verify.books import BooksUnreadable, SimulatorBooks
from app.verify.schemas import FindingView, ReportView
from app.verify.verifier import OVERDUE_S, Report
from app.verify.verifier import verify as prove

READ_S = 60.0


def verify(
    *,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
    fal: Annotated[bool, Parameter(negative="")] = False,
    fal_url: str | None = None,
    overdue_s: Annotated[float, Parameter(name=["--overdue-s"])] = OVERDUE_S,
) -> int:
    """
    Prove the promises; exits 0 if they hold, 1 if one is broken, 3 if database or fal can't be reached.

    Parameters
    ----------
    as_json
        Print JSON, and nothing else.
    fal
        Hold fal's books beside ours: those of the simulator that runs with `callsheet up`.
    fal_url
        Address of another simulator, whose books to hold beside ours.
    overdue_s
        How long past the time of its next step an unfinished job counts as hanging, in seconds.
    """
    if overdue_s <= 0:
        raise Trouble("--overdue-s: must be above 0")
    settings = Settings.read()
    report = asyncio.run(_prove(database_url(settings), fal_url or (_simulator(settings) if fal else None), overdue_s))
    told = ReportView.of(report)
    if as_json:
        print(told.model_dump_json(indent=2))
    else:
        _tell(told)
    return Exit.DONE if told.ok else Exit.FOUND


def _simulator(settings: Settings) -> str:
    url = Running.find(settings.data).simulator_url
    if url is None:
        raise Trouble("--fal: no simulator runs here, and only its books can be read; name one with --fal-url.")
    return url


async def _prove(url: str, fal_url: str | None, overdue_s: float) -> Report:
    db = Database(url, pool=1)
    try:
        async with new_client(READ_S) as http:
            books = SimulatorBooks(http, fal_url) if fal_url else None
            return await prove(db, overdue_s=overdue_s, books=books)
    except BooksUnreadable as error:
        raise Trouble(str(error), Exit.UNREACHABLE) from None
    except (InterfaceError, OperationalError) as error:
        told = str(error).splitlines()[0]
        raise Trouble(f"The database can't be reached: {told}", Exit.UNREACHABLE) from None
    finally:
        await db.close()


def _tell(report: ReportView) -> None:
    console = Console(highlight=False, soft_wrap=True)
    checked = report.checked
    console.print(
        f"{checked.checks} checks over {checked.jobs:,} jobs, {checked.attempts:,} attempts, {checked.events:,} events"
        f" and {checked.entries:,} entries in {report.took_s:.1f} s"
    )
    if checked.requests_at_fal is not None:
        console.print(
            f"fal took {checked.requests_at_fal:,} requests and bills {checked.billed} USD; charged for them:"
            f" {checked.charged} USD, {checked.cents_off} cents off"
        )
    if report.findings:
        _list(report.findings)
    verdict = "Every promise holds." if report.ok else "A promise is broken."
    console.print(verdict, style="bold green" if report.ok else "bold red")


def _list(findings: list[FindingView]) -> None:
    table = Table("", "check", "count", "what should hold", "first of them", box=box.SIMPLE_HEAD)
    for finding in findings:
        first, *others = finding.examples
        table.add_row(finding.severity, finding.check, f"{finding.count:,}", finding.promise, first)
        for other in others:
            table.add_row("", "", "", "", other)
    show_table(table)
