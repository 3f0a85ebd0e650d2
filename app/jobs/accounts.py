"""
The breaker of each fal account: locked when fal says so, tried with one job after a while, opened when that is taken.

What fal says counts only if it was sent after the account got into its present state. So an old acceptance can't
open what was locked since, and an old refusal can't lock what was opened; what was true stays true, and is said again.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app import leases
from app.fal.messages import Refused
from app.jobs.tables import FalAccount

FIRST_PROBE_S: Final = 10.0
"""A lock is often over with an automatic top-up; a refused submit costs nothing."""
LONGEST_PROBE_S: Final = 300.0
"""Nobody who has just topped up wants to wait longer until their jobs go on."""
HOLD: Final = """
    SELECT name, turn, locked_why IS NOT NULL, coalesce(probe_at <= now(), false),
        EXISTS (SELECT FROM tenants WHERE at_once IS NOT NULL)
    FROM fal_accounts WHERE name = ANY(%(names)s) ORDER BY name FOR UPDATE
"""


class Held(NamedTuple):
    """An account whose row is ours until the transaction ends."""

    name: str
    turn: UUID | None
    locked: bool
    to_be_tried: bool
    """It is locked, and may be tried with one job now."""
    tenants_capped: bool
    """Some tenant has a limit of its own; told along, since that saves most rounds a question."""


async def hold(session: AsyncSession, names: Collection[str]) -> Sequence[Held]:
    """These accounts, in the order of their names."""
    connection = await session.connection()
    rows = (await connection.exec_driver_sql(HOLD, {"names": list(names)})).all()
    if len(rows) < len(names):
        missing = [{"name": name} for name in sorted(names)]
        await session.execute(insert(FalAccount).values(missing).on_conflict_do_nothing())
        rows = (await connection.exec_driver_sql(HOLD, {"names": list(names)})).all()
    return [Held(*tuple(row)) for row in rows]


async def all_of(session: AsyncSession, names: Collection[str]) -> Sequence[FalAccount]:
    """The rows of these accounts; one that nothing was sent to yet has none."""
    return (await session.scalars(select(FalAccount).where(FalAccount.name.in_(names)))).all()


async def probing(session: AsyncSession, name: str, *, lease_s: float) -> None:
    """One job is let through to a locked account; should its worker die, the next one may go when the lease is over."""
    await session.execute(
        update(FalAccount)
        .where(FalAccount.name == name, FalAccount.probe_at <= func.now())
        .values(probe_at=func.now() + timedelta(seconds=lease_s), probes=FalAccount.probes + 1)
        .execution_options(synchronize_session=False)
    )


async def refused(session: AsyncSession, name: str, answer: Refused, *, sent_at: datetime) -> bool:
    """fal takes nothing on this account: lock it, or try it again later; whether it was open until now."""
    row = await session.get(FalAccount, name, with_for_update=True, populate_existing=True)
    if row is None or sent_at < row.since:
        return False
    wait_s = leases.backoff_s(row.probes + 1, first_s=FIRST_PROBE_S, longest_s=LONGEST_PROBE_S)
    news = {"locked_why": answer.why, "locked_detail": answer.error["detail"]}
    was_open = row.locked_why is None
    locks = {"since": func.now(), "probes": 0} if was_open else {}
    await session.execute(
        update(FalAccount)
        .where(FalAccount.name == name)
        .values(probe_at=func.now() + timedelta(seconds=wait_s), **news, **locks)
        .execution_options(synchronize_session=False)
    )
    return was_open


async def accepted(session: AsyncSession, name: str, *, sent_at: datetime) -> bool:
    """fal took a job on this account: open it; whether it was locked until now."""
    opened = await session.execute(
        update(FalAccount)
        .where(FalAccount.name == name, FalAccount.locked_why.is_not(None), FalAccount.since <= sent_at)
        .values(locked_why=None, locked_detail=None, probe_at=None, probes=0, since=func.now())
        .execution_options(synchronize_session=False)
    )
    return bool(opened.rowcount)  # type: ignore[attr-defined]
