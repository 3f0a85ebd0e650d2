"""
Leases: how many workers share one table of work without sharing a row.

A row is due when `due_at` has come. Taking it moves `due_at` to the end of the lease, so a worker
that dies simply lets the row come due again; no second column, no sweeper. Every taking raises
`lease_token`, and giving a row back carries the token it was taken with, so a worker that woke up
late can't put off what its successor, or fal's own word, has made due. `lease_owner` is for people.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Database

LONGEST_S: Final = 600.0


class Leased:
    """The columns of a table whose rows are work."""

    due_at: Mapped[datetime | None]
    lease_owner: Mapped[str | None]
    lease_token: Mapped[int] = mapped_column(default=0, server_default="0")
    tries: Mapped[int] = mapped_column(default=0, server_default="0")


Row = TypeVar("Row", bound=Leased)


async def claim(
    session: AsyncSession,
    table: type[Row],
    *where: ColumnElement[bool],
    owner: str,
    limit: int,
    lease_s: float,
    order_by: Sequence[Any] = (),
    values: dict[str, Any] | None = None,
) -> Sequence[Row]:
    """
    Up to *limit* due rows of *table*, now *owner*'s for *lease_s* seconds.

    The picking locks rows and skips those another worker is picking. Whoever takes a row looks
    again that nobody took it, so a claim holds even where rows aren't locked. What is picked first is due
    soonest, or as *order_by* says; the rows come in no order.
    """
    key = tuple(table.__mapper__.primary_key)  # type: ignore[attr-defined]
    due = select(*key, table.lease_token).where(table.due_at <= func.now(), *where)
    picked = due.order_by(*(order_by or (table.due_at,))).limit(limit).with_for_update(skip_locked=True).cte("picked")
    taken = (
        update(table)
        # By its token and not by its being due: all that is due would be read again to find these few.
        .where(*(column == picked.c[column.name] for column in (*key, table.lease_token)))
        .values(
            due_at=func.now() + timedelta(seconds=lease_s),
            lease_owner=owner,
            lease_token=table.lease_token + 1,
            tries=table.tries + 1,
            **(values or {}),
        )
        .returning(table)
        .execution_options(populate_existing=True)
    )
    return (await session.scalars(taken)).all()


async def again(session: AsyncSession, row: Leased, wait_s: float, **values: Any) -> bool:
    """Give *row* back, due again in *wait_s* seconds; False if the lease has gone to another worker."""
    table = type(row)
    kept = await session.execute(
        update(table)
        .where(_same(row), table.lease_token == row.lease_token, table.due_at.is_not(None))
        .values(due_at=func.now() + timedelta(seconds=wait_s), lease_owner=None, **values)
    )
    return bool(kept.rowcount)  # type: ignore[attr-defined]


async def extend(session: AsyncSession, row: Leased, lease_s: float) -> bool:
    """Keep *row* for another *lease_s* seconds; False if it has gone to another worker, or is done."""
    table = type(row)
    kept = await session.execute(
        update(table)
        .where(_same(row), table.lease_token == row.lease_token, table.due_at.is_not(None))
        .values(due_at=func.now() + timedelta(seconds=lease_s))
        .execution_options(synchronize_session=False)
    )
    return bool(kept.rowcount)  # type: ignore[attr-defined]


@asynccontextmanager
async def holding(db: Database, row: Leased, lease_s: float) -> AsyncIterator[None]:
    """Keep *row* while the block runs, however long that is; a dead worker's row still comes due in *lease_s*."""

    async def hold() -> None:
        while True:
            await asyncio.sleep(lease_s / 3)
            with suppress(SQLAlchemyError):
                if not await db.run(partial(extend, row=row, lease_s=lease_s)):
                    return

    task = asyncio.create_task(hold())
    try:
        yield
    finally:
        task.cancel()


def _same(row: Leased) -> ColumnElement[bool]:
    mapper = type(row).__mapper__  # type: ignore[attr-defined]
    return and_(
        *(
            column == value
            for column, value in zip(mapper.primary_key, mapper.primary_key_from_instance(row), strict=True)
        )
    )


def backoff_s(tries: int, *, first_s: float = 1.0, longest_s: float = LONGEST_S) -> float:
    """Seconds until try number *tries* + 1: doubling, never above *longest_s*, spread by half so crowds disperse."""
    whole = min(longest_s, first_s * 2.0 ** min(tries - 1, 30))
    return whole * random.uniform(0.5, 1.0)  # noqa: S311
