"""
fal's verdicts, settled in sets: attempts, jobs, their money and events, and what came in, all in one transaction.
Those whose endings must be told have one of their own where nobody knew before that somebody listens.

`receiver` gathers what arrives while a set is being committed; that is the next set. A set takes what is plainly a
first verdict. What isn't (it came before, another request is known, the price depends on a file's length) is left
out, and `lifecycle.reported` decides about it in a transaction of its own.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app import clock
from app.callbacks import outbox
from app.db import Database, new_id
from app.fal.messages import Outcome, Report
from app.gather import Gatherer
from app.jobs import queries
from app.jobs.callbacks import Told
from app.jobs.lifecycle import AttemptKey
from app.lines import Ask, Few, bytea, told
from app.media.files import files, vanishes_at

# Attempts, and then accounts, are locked in the order of their ids, so that two sets never wait for each other.
# Whom something is to be told isn't settled by SETTLE; what it brings of them is only that they are there.
SETTLES: Final = """
WITH verdict AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(told)s) AS verdict (
        tenant_id uuid, attempt_id uuid, token_digest bytea, request_id text, status text, output jsonb, error jsonb,
        files json, entry_id uuid, inbox_id uuid, inbox_digest bytea, headers jsonb, body text, body_size bigint
    ) LIMIT (SELECT %(many)s)
), plain AS MATERIALIZED (
    SELECT verdict.*, attempts.job_id, (
        SELECT id FROM callback_endpoints AS endpoints WHERE endpoints.tenant_id = verdict.tenant_id LIMIT 1
    ) IS NOT NULL AS somebody_listens
    FROM verdict
    JOIN attempts ON attempts.tenant_id = verdict.tenant_id AND attempts.id = verdict.attempt_id
        AND attempts.token_digest = verdict.token_digest
    JOIN jobs ON jobs.tenant_id = attempts.tenant_id AND jobs.id = attempts.job_id
    WHERE jobs.finished_at IS NULL AND NOT jobs.measured
    ORDER BY attempts.tenant_id, attempts.id
    FOR UPDATE OF attempts
), attempt AS (
    UPDATE attempts SET
        status = 'submitted', fal_request_id = verdict.request_id, answered_at = coalesce(answered_at, now())
    FROM plain AS verdict
    WHERE attempts.tenant_id = verdict.tenant_id AND attempts.id = verdict.attempt_id
        AND {whom}
        AND attempts.status <> 'refused'
        AND (attempts.fal_request_id IS NULL OR attempts.fal_request_id = verdict.request_id)
        AND NOT EXISTS (
            SELECT FROM attempts AS other
            WHERE other.tenant_id = verdict.tenant_id AND other.fal_request_id = verdict.request_id
                AND other.id <> verdict.attempt_id
        )
    RETURNING attempts.tenant_id, attempts.id AS attempt_id, attempts.fal_account, attempts.created_at
), job AS (
    -- A job that isn't measured costs what it was quoted.
    UPDATE jobs SET
        status = verdict.status, event_count = event_count + 1, finished_at = now(), due_at = NULL,
        lease_owner = NULL, waiting_for = NULL, output = verdict.output, error = verdict.error,
        charged = CASE WHEN verdict.status = 'succeeded' THEN quoted ELSE 0 END,
        charged_seconds = CASE WHEN verdict.status = 'succeeded' THEN seconds END,
        fal_request_id = verdict.request_id, fal_account = attempt.fal_account, queue_position = NULL,
        submitted_at = coalesce(submitted_at, attempt.created_at)
    FROM plain AS verdict JOIN attempt USING (tenant_id, attempt_id)
    WHERE jobs.tenant_id = verdict.tenant_id AND jobs.id = verdict.job_id AND jobs.finished_at IS NULL
    RETURNING {job}, verdict.token_digest, 'fal reports ' || verdict.status AS why
), event AS (
    INSERT INTO job_events (tenant_id, job_id, number, status, why)
    SELECT tenant_id, id, event_count, status, why FROM job
), entry AS (
    INSERT INTO ledger_entries (tenant_id, id, kind, from_side, to_side, amount, job_id, hold_amount)
    SELECT job.tenant_id, verdict.entry_id, CASE WHEN job.status = 'succeeded' THEN 'charge' ELSE 'release' END,
        'held', CASE WHEN job.status = 'succeeded' THEN 'spent' ELSE 'available' END, job.quoted, job.id, job.quoted
    FROM job JOIN verdict USING (tenant_id, token_digest)
), account AS MATERIALIZED (
    SELECT tenant_id FROM accounts
    WHERE tenant_id IN (SELECT tenant_id FROM job) ORDER BY tenant_id FOR NO KEY UPDATE
), balance AS (
    UPDATE accounts SET held = held - freed, spent = spent + paid, available = available + freed - paid
    FROM (
        SELECT tenant_id, sum(quoted) AS freed, sum(charged) AS paid FROM job GROUP BY tenant_id
    ) AS moved JOIN account USING (tenant_id)
    WHERE accounts.tenant_id = moved.tenant_id
), file AS (
    INSERT INTO outputs (tenant_id, job_id, number, source_url, content_type, vanishes_at, due_at)
    SELECT job.tenant_id, job.id, file.number, file.source_url, file.content_type, file.vanishes_at, now()
    FROM job JOIN verdict USING (tenant_id, token_digest) CROSS JOIN LATERAL json_to_recordset(verdict.files) AS file (
        number bigint, source_url text, content_type text, vanishes_at timestamptz
    )
), released AS (
    DELETE FROM file_uses USING job WHERE file_uses.tenant_id = job.tenant_id AND file_uses.job_id = job.id
), kept AS (
    INSERT INTO webhook_inbox (id, digest, verdict, headers, body, body_size, request_id, tenant_id, attempt_id)
    SELECT inbox_id, inbox_digest, 'settled', headers, convert_to(body, 'UTF8'), body_size, request_id,
        tenant_id, attempt_id
    FROM job JOIN plain AS verdict USING (tenant_id, token_digest)
    ON CONFLICT (digest) DO UPDATE SET deliveries = webhook_inbox.deliveries + 1, last_received_at = now()
)
{brought}
"""
SETTLE: Final = SETTLES.format(
    whom="NOT verdict.somebody_listens",
    job="jobs.tenant_id, jobs.id, jobs.status, event_count, finished_at, quoted, jobs.charged",
    brought="""
        SELECT tenant_id, token_digest, id, status, event_count, why, finished_at FROM job
        UNION ALL SELECT tenant_id, token_digest, NULL, NULL, NULL, NULL, NULL FROM plain WHERE somebody_listens
    """,
)
SETTLE_TO_TELL: Final = SETTLES.format(
    whom="true",
    job=queries.COLUMNS,
    brought="SELECT *, " + outbox.listeners_of("job", "'job.' || job.status") + " AS listeners FROM job",  # noqa: S608
)


@dataclass(frozen=True, slots=True)
class Heard:
    """A member of a set: a report that fal signed, the attempt's token it came to, and what the inbox keeps of it."""

    key: AttemptKey
    token_digest: bytes
    report: Report
    headers: dict[str, str]
    body: str
    body_size: int
    digest: bytes


async def write(db: Database, heard: Sequence[Heard], listening: set[UUID]) -> list[Any | None]:
    """
    The job that each of *heard* has ended, with its money settled, and `why`; None if this set leaves it out.

    *listening* are the tenants whose endings are known to be told; it learns of more. Where the set has none of
    theirs, one round trip does.
    """
    # Of those that came twice, the first.
    places = {one.token_digest: place for place, one in reversed(list(enumerate(heard))) if _is_plain(one.report)}
    verdicts = {digest: _verdict(heard[place]) for digest, place in places.items()}
    ended: dict[bytes, Any] = {}
    if verdicts and listening.isdisjoint(verdict["tenant_id"] for verdict in verdicts.values()):
        rows = await db.run_one(partial(settle, verdicts=verdicts.values()))
        ended = {row.token_digest: row for row in rows if row.id is not None}
        listening.update(row.tenant_id for row in rows if row.id is None)
        verdicts = {row.token_digest: verdicts[row.token_digest] for row in rows if row.id is None}
    if verdicts:
        try:
            rows = await db.run_few(partial(settle_and_tell, verdicts=verdicts.values()))
        except (DBAPIError, PoolTimeout):
            if not ended:
                raise
            # The others are settled, and must be told so; each of these is decided alone.
            rows = []
        ended |= {row.token_digest: row for row in rows}
    return [ended.get(one.token_digest) if places.get(one.token_digest) == at else None for at, one in enumerate(heard)]


async def settle(ask: Ask, verdicts: Collection[Mapping[str, Any]]) -> Sequence[Any]:
    """The jobs that *verdicts* have ended; a row without an id is of somebody who must be told, and changed nothing."""
    return await ask(SETTLE, told(verdicts))


async def settle_and_tell(ask: Few, verdicts: Collection[Mapping[str, Any]]) -> Sequence[Any]:
    """The jobs that *verdicts* have ended, each to be told to those who listen."""
    (jobs,) = await ask((SETTLE_TO_TELL, told(verdicts)))
    news = [
        Told(job, job.listeners, f"job.{job.status}", job.finished_at, job.event_count).news()
        for job in jobs
        if job.listeners
    ]
    await ask(*outbox.adding(news), commit=True)
    return jobs


def _is_plain(report: Report) -> bool:
    """Whether it says all that is needed to settle it: a job that succeeded has its files."""
    return report.outcome is not Outcome.SUCCEEDED or bool(files(report.output))


def _verdict(one: Heard) -> dict[str, Any]:
    return {
        "tenant_id": one.key.tenant_id,
        "attempt_id": one.key.id,
        "token_digest": bytea(one.token_digest),
        "request_id": one.report.request_id,
        "status": one.report.outcome,
        "output": one.report.output,
        "error": one.report.error,
        "files": list(_files(one.report)),
        "entry_id": new_id(),
        "inbox_id": new_id(),
        "inbox_digest": bytea(one.digest),
        "headers": one.headers,
        "body": one.body,
        "body_size": one.body_size,
    }


def _files(report: Report) -> Iterator[dict[str, Any]]:
    if report.outcome is Outcome.SUCCEEDED:
        for number, file in enumerate(files(report.output), start=1):
            yield {
                "number": number,
                "source_url": file.url,
                "content_type": file.content_type,
                "vanishes_at": vanishes_at(file.url, clock.now()),
            }


def gatherer(db: Database) -> Gatherer[Heard, Any | None]:
    """Where the verdicts that a process hears come together."""
    listening: set[UUID] = set()

    async def together(heard: Sequence[Heard]) -> list[Any | None]:
        return await write(db, heard, listening)

    return Gatherer(together)
