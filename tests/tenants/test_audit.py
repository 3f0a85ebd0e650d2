"""Retention of the audit log."""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import select

from app import clock
from app.db import first_id
from app.tenants.audit import audit, prune
from app.tenants.tables import AuditEntry

YEAR = timedelta(days=365)


async def written(db, days_ago):
    """An entry of so many days ago, by its id."""
    async with db.session() as session:
        audit(session, "cli:test", "key.create", days_ago)
        (entry,) = session.new
        at = first_id(clock.now() - timedelta(days=days_ago))
        entry.id = UUID(int=at.int | entry.id.int & (1 << 80) - 1 if entry.id else at.int)


async def left(db):
    async with db.session() as session:
        return [int(entry.subject) for entry in await session.scalars(select(AuditEntry).order_by(AuditEntry.id))]


async def test_what_is_too_old_goes_the_oldest_first(db):
    for days in (400, 366, 364, 500, 0):
        await written(db, days)

    assert await prune(db, YEAR, batch=1, batches=2) == 2
    assert await left(db) == [366, 364, 0]
    assert await prune(db, YEAR) == 1

    assert await left(db) == [364, 0]
