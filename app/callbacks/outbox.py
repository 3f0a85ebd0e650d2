"""The outbox: what is to be told, written in the transaction that makes it happen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, ScalarSelect, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.callbacks.events import ENDINGS
from app.callbacks.signing import new_secret
from app.callbacks.tables import Endpoint
from app.db import ask_in, new_id
from app.lines import Asked, bytea, told


def of_jobs(tenant_id: UUID) -> dict[str, Any]:
    """A row for the endpoint that stands for the tenant's jobs' own callback_urls, in JSON, for who has none yet."""
    return {"tenant_id": tenant_id, "id": new_id(), "events": ENDINGS, "secret": bytea(new_secret())}


async def ensure_of_jobs(session: AsyncSession, tenant_id: UUID) -> None:
    """Make the endpoint that stands for the tenant's jobs' own callback_urls, if there is none."""
    made = insert(Endpoint).values(tenant_id=tenant_id, id=new_id(), events=list(ENDINGS), secret=new_secret())
    await session.execute(made.on_conflict_do_nothing())


def listeners(table: type[Any], kind: str) -> ScalarSelect[Any]:
    """
    The ids of the endpoints that want to hear *kind* of a row of *table*, which has `tenant_id` and `callback_url`.

    For the RETURNING of the statement that makes it happen: who has no endpoints pays one look into an index for
    it, and no round trip.
    """
    concerned: ColumnElement[bool] = or_(Endpoint.url.is_not(None), table.callback_url.is_not(None))
    return (
        select(func.array_agg(Endpoint.id))
        .where(
            Endpoint.tenant_id == table.tenant_id,
            Endpoint.disabled_at.is_(None),
            Endpoint.events.contains([kind]),
            concerned,
        )
        .correlate(table)
        .scalar_subquery()
    )


def listeners_of(job: str, kind: str) -> str:
    """The same in SQL, for rows named *job*; *kind* is an expression."""
    return f"""(
        SELECT array_agg(endpoints.id) FROM callback_endpoints AS endpoints
        WHERE endpoints.tenant_id = {job}.tenant_id AND endpoints.disabled_at IS NULL
            AND endpoints.events @> ARRAY[{kind}] AND (endpoints.url IS NOT NULL OR {job}.callback_url IS NOT NULL)
    )"""  # noqa: S608 - of names in our own statements


# The endpoint that stands for the jobs' own addresses has none itself.
ADD: Final = """
    INSERT INTO callback_deliveries (
        tenant_id, id, endpoint_id, job_id, sequence, url, type, body, status, due_at, lease_token, tries
    )
    SELECT tenant_id, id, endpoint_id, job_id, sequence,
        CASE WHEN (
            SELECT url FROM callback_endpoints AS endpoint
            WHERE endpoint.tenant_id = told.tenant_id AND endpoint.id = told.endpoint_id
        ) IS NULL THEN callback_url END,
        kind, body, 'pending', now(), 0, 0
    FROM json_to_recordset(%(told)s) AS told (
        tenant_id uuid, id uuid, endpoint_id uuid, job_id uuid, sequence bigint, callback_url text, kind text, body text
    ) LIMIT (SELECT %(many)s)
    RETURNING id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """Something to be told to some of a tenant's endpoints."""

    tenant_id: UUID
    listeners: Sequence[UUID]
    """The ids of the endpoints, as `listeners` finds them."""
    kind: str
    body: str
    job_id: UUID | None = None
    sequence: int | None = None
    """Which of the job's events it is."""
    callback_url: str | None = None
    """The job's own, for the endpoint that stands for those."""


async def add(session: AsyncSession, news: Iterable[News]) -> list[UUID]:
    """Write down that all of *news* is to be told, in one statement; the ids of the deliveries, in that order."""
    rows = _deliveries(news)
    if rows:
        await ask_in(session, ADD, told(rows))
    return [row["id"] for row in rows]


def adding(news: Iterable[News]) -> list[Asked]:
    """The statement that `add` asks, for whoever asks it together with others; none if there is nobody to tell."""
    rows = _deliveries(news)
    return [(ADD, told(rows))] if rows else []


def _deliveries(news: Iterable[News]) -> list[dict[str, Any]]:
    return [
        {
            "tenant_id": each.tenant_id,
            "id": new_id(),
            "endpoint_id": endpoint_id,
            "job_id": each.job_id,
            "sequence": each.sequence,
            "callback_url": each.callback_url,
            "kind": each.kind,
            "body": each.body,
        }
        for each in news
        for endpoint_id in each.listeners
    ]
