"""
Letting go of what is old, in the one shape that every pruner has: small batches, oldest first.

A batch is a transaction of its own, which finds its rows by an index and skips what somebody holds. A run is a bounded
number of batches: no lock is held for long, and vacuum gets the room back between two runs. Whoever dies in the middle
leaves whole batches behind, and the next run goes on.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from sqlalchemy import ColumnElement, delete, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.db import Base, Database

EVERY_S: Final = 60.0
"""How often a table is pruned: little and often, which with the bounds below is 14 million rows a day."""
BATCH: Final = 500
BATCHES: Final = 20


async def in_batches(
    db: Database,
    prune: Callable[..., Awaitable[int]],
    *,
    batch: int = BATCH,
    batches: int = BATCHES,
    **old: Any,
) -> int:
    """
    One run of *prune*, which is given a session, a *limit* and what *old* says; how many rows went.

    It ends with the first batch that isn't full, or after *batches* of them.
    """
    gone = 0
    for _ in range(batches):
        some = await db.run(partial(prune, limit=batch, **old))
        gone += some
        if some < batch:
            break
    return gone


async def delete_oldest(
    session: AsyncSession,
    table: type[Base],
    by: InstrumentedAttribute[Any],
    *old: ColumnElement[bool],
    limit: int,
) -> int:
    """Delete up to *limit* rows of *table* that are *old*, in the order of *by*; how many went."""
    key = table.__mapper__.primary_key
    oldest = select(*key).where(*old).order_by(by).limit(limit).with_for_update(skip_locked=True)
    # As a CTE it is picked once; as a plain subquery it could be run again for each row.
    gone = delete(table).where(tuple_(*key).in_(oldest.cte("oldest").select()))
    done = await session.execute(gone.execution_options(synchronize_session=False))
    return int(done.rowcount)  # type: ignore[attr-defined]
