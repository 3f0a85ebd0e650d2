"""
What waits in our queue, and what is at fal: the reads behind a round of dispatch.

A lane is what waits of one tenant for one model at one priority. The index goes by lane and then by time, so
going from lane to lane costs one step each, however many jobs are in them.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Database
from app.jobs.fairness import AtFal, Caps, Room, Waiting, room
from app.jobs.states import JobStatus
from app.jobs.tables import AT_FAL, Job
from app.lines import Asked

MOST_LANES: Final = 10_000
"""Lanes looked at in a round: some tens of milliseconds, if all of them wait for a later time."""
MOST_ROWS: Final = 2_000
"""Jobs looked at in a round, unless there are more lanes than that."""

# `found` counts the tenants with a job that may go; of one more than enough the lanes may be incomplete.
PART: Final = """
    {name} AS (
        (
            SELECT j.tenant_id, j.model, j.priority, may.go, may.go AS hit, 1 AS visited, CAST(may.go AS int) AS found
            FROM jobs j CROSS JOIN LATERAL (
                SELECT j.due_at <= now() AND j.tenant_id <> ALL(CAST(%(full_tenants)s AS uuid[]))
                    AND j.model <> ALL(CAST(%(full_models)s AS text[])) AS go
            ) may
            WHERE j.status = 'queued' AND j.tenant_id > {after} AND j.tenant_id <= {until} AND {enough} > 0
            ORDER BY j.tenant_id, j.model, j.priority, j.due_at
            LIMIT 1
        )
        UNION ALL
        SELECT following.tenant_id, following.model, following.priority, may.go, may.go OR was.hit, l.visited + 1,
            l.found + CASE WHEN may.go AND NOT was.hit THEN 1 ELSE 0 END
        FROM {name} l
        CROSS JOIN LATERAL (
            SELECT j.tenant_id, j.model, j.priority, j.due_at
            FROM jobs j
            WHERE j.status = 'queued' AND (j.tenant_id, j.model, j.priority) > (l.tenant_id, l.model, l.priority)
                AND j.tenant_id <= {until}
            ORDER BY j.tenant_id, j.model, j.priority, j.due_at
            LIMIT 1
        ) following
        CROSS JOIN LATERAL (
            SELECT following.due_at <= now() AND following.tenant_id <> ALL(CAST(%(full_tenants)s AS uuid[]))
                AND following.model <> ALL(CAST(%(full_models)s AS text[])) AS go
        ) may
        CROSS JOIN LATERAL (SELECT l.hit AND l.tenant_id = following.tenant_id AS hit) was
        WHERE l.visited < %(most)s AND l.found <= {enough}
    )
"""
TURN: Final = "(SELECT after FROM turn)"
ABOVE: Final = PART.format(name="above", after=TURN, until="%(highest)s", enough="%(tenants)s")
# What the first part left to be found; nothing, if it had to stop before its end.
REST: Final = """(
    SELECT %(tenants)s - least(coalesce(max(found), 0), %(tenants)s)
        - CASE WHEN max(visited) = %(most)s THEN %(tenants)s ELSE 0 END
    FROM above
)"""
BELOW: Final = PART.format(name="below", after="%(lowest)s", until=TURN, enough=REST)
WAITING: Final = f"""
    WITH RECURSIVE turn AS MATERIALIZED (
        SELECT coalesce(
            (SELECT turn FROM fal_accounts WHERE name = ANY(CAST(%(accounts)s AS text[])) ORDER BY name LIMIT 1),
            CAST(%(after)s AS uuid), %(lowest)s
        ) AS after
    ), {ABOVE}, {BELOW}, lane AS MATERIALIZED (
        SELECT tenant_id, model, priority FROM above WHERE go AND found <= %(tenants)s
        UNION ALL
        SELECT tenant_id, model, priority FROM below WHERE go AND found <= {REST}
    ), stop AS (
        SELECT (
            SELECT tenant_id
            FROM (SELECT tenant_id, visited FROM above UNION ALL SELECT tenant_id, visited FROM below) AS seen
            WHERE visited = %(most)s
        ) AS until
    ), due AS (
        SELECT found.*
        FROM lane CROSS JOIN LATERAL (
            SELECT j.tenant_id, j.id, j.model, j.priority, j.due_at
            FROM jobs j
            WHERE j.status = 'queued' AND j.tenant_id = lane.tenant_id AND j.model = lane.model
                AND j.priority = lane.priority AND j.due_at <= now()
                AND (j.deadline_at IS NULL OR j.deadline_at > now())
            ORDER BY j.due_at
            LIMIT (SELECT greatest(1, least(%(limit)s, {MOST_ROWS} / greatest(1, count(*)))) FROM lane)
        ) found
    )
    SELECT stop.until, due.* FROM stop LEFT JOIN due ON true
"""  # noqa: S608 - of constants
ROOM: Final = f"""
    WITH own AS MATERIALIZED (SELECT id, at_once FROM tenants WHERE at_once IS NOT NULL)
    SELECT id AS tenant_id, NULL AS model, NULL AS account, at_once AS jobs FROM own
    UNION ALL
    SELECT tenant_id, model, fal_account, count(*) FROM jobs
    WHERE {AT_FAL} AND (%(capped)s OR EXISTS (SELECT FROM own))
    GROUP BY tenant_id, model, fal_account
"""  # noqa: S608 - of a constant
# The same, and which of the accounts are locked, told as rows with an account alone.
ROOM_AND_LOCKS: Final = f"""
    {ROOM} UNION ALL
    SELECT NULL, NULL, name, NULL FROM fal_accounts WHERE name = ANY(%(accounts)s) AND locked_why IS NOT NULL
"""  # noqa: S608 - of a constant
LOWEST, HIGHEST = UUID(int=0), UUID(int=2**128 - 1)


class Due(NamedTuple):
    """What is due; *until* is the last tenant looked at, if there were too many lanes to see all."""

    jobs: Sequence[Waiting]
    until: UUID | None


def waiting(
    *,
    limit: int,
    accounts: Collection[str] = (),
    after: UUID | None = None,
    full_tenants: Collection[UUID] = (),
    full_models: Collection[str] = (),
    most: int = MOST_LANES,
) -> Asked:
    """
    Asks for the first due jobs, at most *limit*, of each lane of up to *limit* tenants; `due` reads the answer.

    It begins after the tenant whose turn it was last on the first of *accounts*, or else after the tenant *after*, and
    after the last tenant goes on with the first. One statement, for each round of dispatch waits for it.
    """
    wanted: dict[str, Any] = {
        "accounts": list(accounts),
        "after": after,
        "lowest": LOWEST,
        "highest": HIGHEST,
        "full_tenants": list(full_tenants),
        "full_models": list(full_models),
        "tenants": limit,
        "limit": limit,
        "most": most,
    }
    return WAITING, wanted


def due(rows: Sequence[Any]) -> Due:
    """What the *rows* of `waiting` say."""
    return Due([Waiting(*tuple(row)[1:]) for row in rows if row.id is not None], rows[0].until)


async def at_fal(session: AsyncSession) -> list[AtFal]:
    """What fal has, or may have, by tenant, model and account."""
    statuses = (JobStatus.SUBMITTING, JobStatus.SUBMIT_UNKNOWN, JobStatus.SUBMITTED, JobStatus.IN_PROGRESS)
    counted = (
        select(Job.tenant_id, Job.model, Job.fal_account, func.count())
        .where(Job.status.in_(statuses))
        .group_by(Job.tenant_id, Job.model, Job.fal_account)
    )
    return [AtFal(*row) for row in (await session.execute(counted)).all()]


def at_fal_now(caps: Caps) -> Asked:
    """Asks what is at fal, which is counted only where something is capped; `room_left` reads the answer."""
    return ROOM, {"capped": caps.any}


def room_left(caps: Caps, rows: Iterable[Any]) -> Room:
    """How much more may go to fal now, as the *rows* of `at_fal_now` say."""
    own: dict[UUID, int] = {}
    there: list[AtFal] = []
    for tenant_id, model, account, jobs in rows:
        if model is None:
            own[tenant_id] = jobs
        else:
            there.append(AtFal(tenant_id, model, account, jobs))
    return room(caps, own, there)


async def room_and_locks(db: Database, caps: Caps) -> tuple[Room, set[str]]:
    """`room_left`, and which accounts are locked; nothing is locked that nothing was sent to yet."""
    asked = {"capped": caps.any, "accounts": list(caps.accounts)}
    rows = await db.run_one(lambda ask: ask(ROOM_AND_LOCKS, asked))
    locked = {account for tenant_id, _, account, _ in rows if tenant_id is None}
    return room_left(caps, [row for row in rows if row[0] is not None]), locked
