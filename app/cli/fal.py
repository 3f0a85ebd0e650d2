"""callsheet fal: the fal accounts, what each has, and whether it takes requests."""

from datetime import datetime

from rich import box
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncSession

from app.cli.database import in_database
from app.cli.tables import show_table
from app.jobs import accounts, lanes
from app.jobs.tables import FalAccount
from app.settings import Settings


def fal() -> None:
    """List the fal accounts: jobs at fal, cap, and since when and why one is locked."""
    caps = {name: at_once for name, (_, at_once) in Settings.read().accounts().items()}

    async def read(session: AsyncSession) -> tuple[dict[str, int], dict[str, FalAccount]]:
        has: dict[str, int] = {}
        for row in await lanes.at_fal(session):
            has[row.account] = has.get(row.account, 0) + row.jobs
        # What is at fal on an account that is no longer configured can't be asked about, so it is shown, too.
        rows = await accounts.all_of(session, {*caps, *has})
        return has, {row.name: row for row in rows}

    has, rows = in_database(read)
    table = Table("account", "at fal", "cap", "locked since", "why", "next try", "tries", box=box.SIMPLE_HEAD)
    for name in sorted({*caps, *has}):
        cap = "not configured" if name not in caps else str(caps[name] or "none")
        table.add_row(name, str(has.get(name, 0)), cap, *_lock(rows.get(name)))
    show_table(table)


def _lock(row: FalAccount | None) -> tuple[str, str, str, str]:
    if row is None or row.locked_why is None:
        return "-", "-", "-", "-"
    why = f"{row.locked_why}: {row.locked_detail}" if row.locked_detail else row.locked_why
    return _time(row.since), why, _time(row.probe_at), str(row.probes)


def _time(time: datetime | None) -> str:
    return time.astimezone().isoformat(sep=" ", timespec="seconds") if time is not None else "-"
