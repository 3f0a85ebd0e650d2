"""
Chores: what is to be done every so often, by one of however many workers there are.

A chore is a leased row, so whoever takes it when it is due does it, and a worker that died over it lets it come
due again. What a run leaves behind is kept in the row, for the next one and for whoever wants to know.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypeAlias

import structlog
from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from app import leases
from app.db import Base, Database
from app.leases import Leased

log = structlog.get_logger()

LONGEST_S: Final = 3600.0
"""How long one run may take: no lease is held for ever for something that hangs."""

Result: TypeAlias = dict[str, Any]
"""What a run leaves behind, as JSON."""


class Chore(Leased, Base):
    """Something that is done every so often: when it is due, when it was done last, and what that left."""

    __tablename__ = "chores"

    name: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    done_at: Mapped[datetime | None]
    result: Mapped[Result | None]


@dataclass(frozen=True, slots=True)
class Duty:
    """A chore's name, how often it is to be done, and how; *do* is given what the run before left behind."""

    name: str
    every_s: float
    do: Callable[[Result | None], Awaitable[Result]]


@dataclass(slots=True)
class Chores:
    """Does every duty when it is due."""

    db: Database
    duties: Sequence[Duty]
    owner: str
    lease_s: float
    _written_down: bool = field(default=False, init=False)

    @property
    def at_once(self) -> int:
        """All of them: a long one doesn't keep the others waiting."""
        return len(self.duties)

    async def take(self, limit: int) -> list[Coroutine[Any, Any, None]]:
        """Up to *limit* due chores, to be done side by side."""
        if not self._written_down:
            await self.db.run(self._write_down)
            self._written_down = True
        duties = {duty.name: duty for duty in self.duties}
        due = partial(self._due_chores, names=list(duties), limit=limit)
        return [self._do(duties[row.name], row) for row in await self.db.run(due)]

    async def _due_chores(self, session: AsyncSession, names: list[str], limit: int) -> Sequence[Chore]:
        ours = Chore.name.in_(names)
        return await leases.claim(session, Chore, ours, owner=self.owner, limit=limit, lease_s=self.lease_s)

    async def _write_down(self, session: AsyncSession) -> None:
        """A row for each duty; one that shall be done more often than before comes due accordingly."""
        # In one order everywhere: two workers that begin at once mustn't wait for each other.
        for duty in sorted(self.duties, key=lambda duty: duty.name):
            soon = func.now() + timedelta(seconds=max(duty.every_s, self.lease_s))
            await session.execute(
                insert(Chore)
                .values(name=duty.name, due_at=func.now())
                .on_conflict_do_update(index_elements=[Chore.name], set_={"due_at": soon}, where=Chore.due_at > soon)
            )

    async def _do(self, duty: Duty, row: Chore) -> None:
        try:
            async with leases.holding(self.db, row, self.lease_s), asyncio.timeout(LONGEST_S):
                result = await duty.do(row.result)
        except Exception as error:  # noqa: BLE001 - whatever it was, the chore is still to be done
            # Only its kind: a driver's text quotes the values of the statement.
            log.error("chore_failed", chore=duty.name, tries=row.tries, why=type(error).__name__)  # noqa: TRY400
            wait_s = leases.backoff_s(row.tries, longest_s=min(duty.every_s, leases.LONGEST_S))
            await self.db.insist(partial(leases.again, row=row, wait_s=wait_s), for_s=self.lease_s)
            return
        done = partial(leases.again, row=row, wait_s=duty.every_s, tries=0, done_at=func.now(), result=result)
        await self.db.insist(done, for_s=self.lease_s)
