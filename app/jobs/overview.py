"""GET /v1/overview: what is under way, how the latest jobs went, and the balance."""

from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing import queries as entries
from app.billing.schemas import EXAMPLE_BALANCE, BalanceView
from app.db import Database, ask_in
from app.errors import Unavailable, problems
from app.jobs.states import ENDINGS, JobStatus
from app.tenants.auth import JobsReader, Unauthorized
from app.tenants.caller import Forbidden
from app.tenants.keys import Scope

router = APIRouter(prefix="/v1")

LATEST: Final = 100
"""Jobs looked at to tell how it goes lately."""
UNDER_WAY: Final = [status for status in JobStatus if status not in ENDINGS]
# By the index over tenant, status and id: it reads what is under way, and one job of each status.
COUNT: Final = """
    SELECT under_way.status, (
        SELECT count(*) FROM jobs WHERE tenant_id = %(tenant)s AND jobs.status = under_way.status
    ) AS jobs, (
        SELECT created_at FROM jobs WHERE tenant_id = %(tenant)s AND jobs.status = under_way.status
        ORDER BY id LIMIT 1
    ) AS oldest_at
    FROM unnest(CAST(%(under_way)s AS text[])) WITH ORDINALITY AS under_way (status, place)
    ORDER BY place
"""
LATELY: Final = """
    SELECT status, count(*) AS jobs, min(created_at) AS since
    FROM (
        SELECT status, created_at FROM jobs WHERE tenant_id = %(tenant)s ORDER BY id DESC LIMIT %(latest)s
    ) AS latest
    GROUP BY status
"""
EXAMPLE: Final[dict[str, Any]] = {
    "under_way": [
        {"status": "queued", "jobs": 2, "oldest_at": "2026-11-22T14:29:10Z"},
        {"status": "submitting", "jobs": 0, "oldest_at": None},
        {"status": "submit_unknown", "jobs": 0, "oldest_at": None},
        {"status": "submitted", "jobs": 1, "oldest_at": "2026-11-22T14:28:02Z"},
        {"status": "in_progress", "jobs": 0, "oldest_at": None},
    ],
    "latest": {"since": "2026-11-22T09:12:44Z", "jobs": {"succeeded": 95, "failed": 2, "queued": 2, "submitted": 1}},
    "balance": EXAMPLE_BALANCE,
}


class UnderWay(BaseModel):
    """The jobs of one status."""

    status: JobStatus
    jobs: int = Field(description="How many have it now")
    oldest_at: datetime | None = Field(description="When the oldest of them was created; null if there is none")


class Latest(BaseModel):
    """What became so far of the jobs that were created last."""

    since: datetime | None = Field(description="When the first of them was created; null without any job")
    jobs: dict[JobStatus, int] = Field(description=f"How many of the latest {LATEST} have each status")


class Overview(BaseModel):
    """How things are."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    under_way: list[UnderWay] = Field(description="Every status of a job that hasn't ended, in the order of its life")
    latest: Latest
    balance: BalanceView | None = Field(description="Null for a key without `billing:read`")


@router.get(
    "/overview",
    tags=["Jobs"],
    operation_id="get_overview",
    summary="See how things are",
    responses=problems(Unauthorized, Forbidden, Unavailable),
)
async def overview(request: Request, caller: JobsReader) -> Overview:
    """
    What is under way and since when, how the latest jobs went, and the balance.

    What has ended long ago costs nothing here, so a page may ask for it every few seconds.
    """
    db: Database = request.app.state.db
    async with db.reading_as(caller.tenant_id) as session:
        found = await read(session, caller.tenant_id)
        if Scope.BILLING_READ in caller.scopes:
            found.balance = BalanceView.of(await entries.account(session, caller.tenant_id))
    return found


async def read(session: AsyncSession, tenant_id: UUID) -> Overview:
    """The tenant's, without its balance."""
    under_way = await ask_in(session, COUNT, {"tenant": tenant_id, "under_way": UNDER_WAY})
    latest = await ask_in(session, LATELY, {"tenant": tenant_id, "latest": LATEST})
    return Overview(
        under_way=[
            UnderWay(status=row.status, jobs=row.jobs, oldest_at=row.oldest_at and row.oldest_at.astimezone(UTC))
            for row in under_way
        ],
        latest=Latest(
            since=min((row.since.astimezone(UTC) for row in latest), default=None),
            jobs={row.status: row.jobs for row in latest},
        ),
        balance=None,
    )
