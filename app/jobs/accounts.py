"""
The breaker of each fal account: locked when fal says so, tried with one job after a while, opened when that is taken.

What fal says counts only if it was sent after the account got into its present state. So an old acceptance can't
open what was locked since, and an old refusal can't lock what was opened; what was true stays true, and is said again.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app import leases
from app.fal.messages import Refused
from app.jobs.tables import FalAccount

FIRST_PROBE_S: Final = 10.0
"""A lock is often over with an automatic top-up; a refused submit costs nothing."""
LONGEST_PROBE_S: Final = 300.0
"""Nobody who has just topped up wants to wait longer until their jobs go on."""
ADD: Final = """
    INSERT INTO fal_accounts (name) SELECT name FROM unnest(CAST(%(names)s AS text[])) AS name ORDER BY name
    ON CONFLICT DO NOTHING
"""
HOLD: Final = """
    SELECT name, turn, locked_why IS NOT NULL AS locked, coalesce(probe_at <= now(), false) AS to_be_tried
    FROM fal_accounts WHERE name = ANY(%(names)s) ORDER BY name FOR UPDATE
"""
# Should the worker of the one job that is let through to a locked account die, the next may go when its lease is over.
PROBING: Final = """
    UPDATE fal_accounts SET probe_at = now() + make_interval(secs => %(lease_s)s), probes = probes + 1
    WHERE name = ANY(%(names)s) AND probe_at <= now()
"""


async def all_of(session: AsyncSession, names: Collection[str]) -> Sequence[FalAccount]:
    """The rows of these accounts; one that nothing was sent to yet has none."""
    return (await session.scalars(select(FalAccount).where(FalAccount.name.in_(names)))).all()


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
