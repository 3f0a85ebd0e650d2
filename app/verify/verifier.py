"""Ask every check, in one snapshot of the database."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import Database
from app.verify import life, money, paid, told, waiting
from app.verify.books import Books
from app.verify.check import Check, Finding, Severity, Tally, examine

CHECKS: Final[Sequence[Check]] = (*money.CHECKS, *life.CHECKS, *waiting.CHECKS, *told.CHECKS)
OVERDUE_S: Final = 900.0
"""How long past the time of its next step a job counts as hanging: ten leases."""
# Everything is read, which takes longer than a request's statement may, and is done soonest in the order of the
# disk: by an index, a million lives would be fetched row by row. What doesn't fit into the memory goes to disk.
LOCALLY: Final = {
    "statement_timeout": "15min",
    "idle_in_transaction_session_timeout": "5min",
    "work_mem": "64MB",
    "enable_indexscan": "off",
    "jit": "off",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What was proved, *at* one moment of the database, and what broke its promise."""

    at: datetime
    took_s: float
    checks: int
    counts: dict[str, Decimal]
    findings: list[Finding]
    with_fal: bool

    @property
    def ok(self) -> bool:
        """Whether every promise holds; a warning breaks none."""
        return all(finding.check.severity is Severity.WARNING for finding in self.findings)


async def verify(db: Database, *, overdue_s: float = OVERDUE_S, books: Books | None = None) -> Report:
    """
    Every check, asked of one snapshot; with *books*, fal's beside ours too.

    Raises BooksUnreadable if those can't be read.
    """
    since = time.monotonic()
    tally = Tally()
    # Before the snapshot: what fal had taken by now was written down before it was sent.
    until = await books.until() if books else 0
    async with snapshot(db) as connection:
        at = (await connection.execute(text("SELECT now()"))).scalar_one()
        await examine(connection, CHECKS, tally, {"overdue_s": overdue_s})
        if books:
            await connection.execute(text("SET LOCAL enable_indexscan = on"))
            seen: set[UUID] = set()
            async for page in books.pages(until):
                await paid.compare(connection, page, seen, tally)
    asked = len(CHECKS) + (len(paid.CHECKS) if books else 0)
    return Report(at, time.monotonic() - since, asked, tally.counts, list(tally.findings.values()), books is not None)


@asynccontextmanager
async def snapshot(db: Database) -> AsyncIterator[AsyncConnection]:
    """One unchanging view of the database, for as long as the block runs; nothing can be written in it."""
    async with db.engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        async with connection.begin():
            for name, value in LOCALLY.items():
                await connection.execute(text(f"SET LOCAL {name} = '{value}'"))
            yield connection
