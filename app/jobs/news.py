"""
What happened to many jobs since each was last looked at: one statement, however many are looked at.

A job's events are numbered under its row's lock, so whoever saw number 4 has missed nothing before it. Across
jobs there is no such number: transactions commit in another order than they began in, and a place in a list by
time or id would pass over the one that commits late. So events carry the transaction that wrote them, and the
list of all jobs goes only as far as every transaction is over. A long one makes that list late, never wrong.
"""

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.lines import Ask

PAGE: Final = 64
"""Events of one look at one job, or at one tenant's jobs."""
PLACE: Final = struct.Struct(">Q16sQ")


class Facts(NamedTuple):
    """What a stream has told of how a job waits; changes of it aren't events."""

    waiting_for: str | None
    queue_position: int | None
    expected_at: datetime | None


class JobPlace(NamedTuple):
    """How far somebody is with one job: the events up to *seen*, and *told*, if anything."""

    tenant_id: UUID
    job_id: UUID
    seen: int
    told: Facts | None


class Place(NamedTuple):
    """A place in the list of a tenant's events."""

    transaction_id: int
    job_id: UUID
    number: int

    def encode(self) -> str:
        """As callers get and give it."""
        packed = PLACE.pack(self.transaction_id, self.job_id.bytes, self.number)
        return urlsafe_b64encode(packed).decode().rstrip("=")

    @classmethod
    def decode(cls, written: str) -> "Place":
        """The place written as *written*. Raises ValueError if it is none."""
        try:
            transaction_id, job_id, number = PLACE.unpack(urlsafe_b64decode(written.encode() + b"=="))
        except struct.error as error:
            raise ValueError(str(error)) from None
        if max(transaction_id, number) >= 2**63:
            raise ValueError("out of range")
        return cls(transaction_id, UUID(bytes=job_id), number)


BEGINNING: Final = Place(0, UUID(int=0), 0)


class TenantPlace(NamedTuple):
    """How far somebody is with all of a tenant's events."""

    tenant_id: UUID
    place: Place


# Every transaction before it is over; one that is under way, or begins later, is not before it.
OVER_BEFORE: Final = "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
BEGUN_BEFORE: Final = "pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
OF_JOBS: Final = f"""
    SELECT w.which, j.status, j.waiting_for, j.queue_position, j.expected_at, j.run_after, now() AS at,
        e.number, e.status AS event_status, e.why, e.created_at
    FROM unnest(
        CAST(%(tenants)s AS uuid[]), CAST(%(jobs)s AS uuid[]), CAST(%(seen)s AS bigint[]),
        CAST(%(untold)s AS boolean[]), CAST(%(waiting_for)s AS text[]), CAST(%(queue_position)s AS bigint[]),
        CAST(%(expected_at)s AS timestamptz[])
    ) WITH ORDINALITY AS w(tenant_id, job_id, seen, untold, waiting_for, queue_position, expected_at, which)
    JOIN jobs j ON j.tenant_id = w.tenant_id AND j.id = w.job_id
    LEFT JOIN LATERAL (
        SELECT number, status, why, created_at FROM job_events
        WHERE tenant_id = w.tenant_id AND job_id = w.job_id AND number > w.seen
        ORDER BY number LIMIT {PAGE}
    ) AS e ON true
    WHERE w.untold OR j.event_count > w.seen
        OR (j.waiting_for, j.queue_position, j.expected_at)
            IS DISTINCT FROM (w.waiting_for, w.queue_position, w.expected_at)
    ORDER BY w.which, e.number
"""  # noqa: S608 - a number of ours
OF_TENANTS: Final = f"""
    SELECT w.which, e.transaction_id, e.job_id, e.number, e.status AS event_status, e.why, e.created_at,
        j.status, j.waiting_for, j.queue_position, j.expected_at, j.run_after,
        j.model, j.end_user, j.metadata AS labels
    FROM unnest(
        CAST(%(tenants)s AS uuid[]), CAST(%(transactions)s AS bigint[]), CAST(%(jobs)s AS uuid[]),
        CAST(%(numbers)s AS bigint[])
    ) WITH ORDINALITY AS w(tenant_id, transaction_id, job_id, number, which)
    CROSS JOIN LATERAL (
        SELECT transaction_id, job_id, number, status, why, created_at FROM job_events
        WHERE tenant_id = w.tenant_id
            AND (transaction_id, job_id, number) > (w.transaction_id, w.job_id, w.number)
            AND transaction_id < {OVER_BEFORE}
        ORDER BY transaction_id, job_id, number LIMIT {PAGE}
    ) AS e
    JOIN jobs j ON j.tenant_id = w.tenant_id AND j.id = e.job_id
    ORDER BY w.which, e.transaction_id, e.job_id, e.number
"""  # noqa: S608 - a number and a condition of ours


async def of_jobs(ask: Ask, places: Sequence[JobPlace]) -> Sequence[Any]:
    """
    What is new of each job: `which` counts *places* from 1, and each row has the job's facts and one event.

    A row without `number` is a job that waits otherwise than was told. A job has at most PAGE rows.
    """
    told = [place.told or Facts(None, None, None) for place in places]
    given = {
        "tenants": [place.tenant_id for place in places],
        "jobs": [place.job_id for place in places],
        "seen": [place.seen for place in places],
        "untold": [place.told is None for place in places],
        "waiting_for": [facts.waiting_for for facts in told],
        "queue_position": [facts.queue_position for facts in told],
        "expected_at": [facts.expected_at for facts in told],
    }
    return await ask(OF_JOBS, given)


async def of_tenants(ask: Ask, places: Sequence[TenantPlace]) -> Sequence[Any]:
    """The events after each place, at most PAGE for each: `which` counts *places* from 1."""
    given = {
        "tenants": [tenant_id for tenant_id, _ in places],
        "transactions": [place.transaction_id for _, place in places],
        "jobs": [place.job_id for _, place in places],
        "numbers": [place.number for _, place in places],
    }
    return await ask(OF_TENANTS, given)


async def now_at(session: AsyncSession) -> Place:
    """The place after which everything is that isn't over yet."""
    return Place((await session.execute(text(f"SELECT {OVER_BEFORE}"))).scalar_one(), UUID(int=0), 0)


async def is_ours(session: AsyncSession, place: Place) -> bool:
    """Whether *place* can be this database's: one that was restored from a dump counts anew."""
    begun: int = (await session.execute(text(f"SELECT {BEGUN_BEFORE}"))).scalar_one()
    return place.transaction_id <= begun
