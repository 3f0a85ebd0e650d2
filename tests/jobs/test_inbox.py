"""Retention of the webhook inbox."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text

from app.jobs import inbox
from app.jobs.tables import WebhookDelivery
from app.settings import Settings, SettingsError

MONTH = timedelta(days=30)
FILL = text("""
    INSERT INTO webhook_inbox (id, digest, verdict, headers, body, body_size, received_at)
    SELECT gen_random_uuid(), sha256(('x' || n)::bytea), 'settled', '{}', 'x', 1, now() - (n + 0.5) * interval '1 day'
    FROM generate_series(0, :days - 1) AS n
""")


@pytest.fixture
async def year(db):
    """A delivery a day, for a year."""
    async with db.session() as session:
        await session.execute(FILL, {"days": 365})


async def ages(db):
    async with db.session() as session:
        days = func.extract("day", func.now() - WebhookDelivery.received_at)
        return sorted(int(day) for day in await session.scalars(select(days)))


async def test_what_is_too_old_goes_and_the_rest_stays(db, year):
    assert await inbox.prune(db, MONTH) == 335

    assert await ages(db) == list(range(30))
    assert await inbox.prune(db, MONTH) == 0


async def test_a_run_takes_a_bounded_number_the_oldest_first(db, year):
    assert await inbox.prune(db, MONTH, batch=10, batches=3) == 30

    assert await ages(db) == list(range(335))


async def test_two_at_once_share_what_there_is(db, year):
    deleted = await asyncio.gather(*(inbox.prune(db, MONTH, batch=20) for _ in range(3)))

    await inbox.prune(db, MONTH)
    assert sum(deleted) <= 335
    assert await ages(db) == list(range(30))


async def test_what_somebody_holds_is_left_for_the_next_run_without_waiting(db, year):
    async with db.session() as other:
        oldest = select(WebhookDelivery).order_by(WebhookDelivery.received_at).limit(5).with_for_update()
        assert len((await other.scalars(oldest)).all()) == 5
        async with asyncio.timeout(60):
            assert await inbox.prune(db, MONTH) == 330


async def test_vacuum_comes_long_before_a_fifth_of_the_inbox_is_dead(db):
    async with db.session() as session:
        said = await session.scalar(text("SELECT reloptions FROM pg_class WHERE relname = 'webhook_inbox'"))

    assert said == ["autovacuum_vacuum_scale_factor=0.01"]


@pytest.mark.parametrize("days", [6, 0, -1])
def test_keeping_less_than_a_week_is_refused(days):
    with pytest.raises(SettingsError, match="INBOX_DAYS"):
        Settings.read(inbox_days=days, _env_file=None)
