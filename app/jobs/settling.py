"""
fal's verdicts, settled in sets: attempts, jobs, their money and events, and what came in, all in one transaction.

`receiver` gathers what arrives while a set is being committed; that is the next set. A set takes what is plainly a
first verdict. What isn't (it came before, another request is known, the price depends on a file's length) is left
out, and `lifecycle.reported` decides about it in a transaction of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from uuid import UUID

from pydantic_core import to_json

from app import clock, money
from app.callbacks import outbox
from app.db import Database, new_id
from app.fal.messages import Outcome, Report
from app.gather import Gatherer
from app.jobs import queries
from app.jobs.callbacks import Told
from app.lines import NOTHING_WRITTEN, Few
from app.media.files import files, vanishes_at

FIND: Final = """
    SELECT attempts.token_digest, attempts.tenant_id, attempts.id, attempts.job_id, jobs.seconds,
        jobs.price_per_second, jobs.base_amount, jobs.base_seconds, jobs.quoted,
        (
            SELECT id FROM callback_endpoints AS endpoints WHERE endpoints.tenant_id = attempts.tenant_id LIMIT 1
        ) IS NOT NULL AS somebody_listens
    FROM unnest(CAST(%(tenants)s AS uuid[]), CAST(%(digests)s AS bytea[])) AS heard (tenant_id, token_digest)
    JOIN attempts ON attempts.tenant_id = heard.tenant_id AND attempts.token_digest = heard.token_digest
    JOIN jobs ON jobs.tenant_id = attempts.tenant_id AND jobs.id = attempts.job_id
    WHERE attempts.status <> 'refused' AND jobs.finished_at IS NULL AND NOT jobs.measured
"""
# Attempts, and then accounts, are locked in the order of their ids, so that two sets never wait for each other.
SETTLE: Final = """
WITH verdict AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(verdicts)s) AS verdict (
        tenant_id uuid, attempt_id uuid, job_id uuid, request_id text, status text, output jsonb, error jsonb,
        charged numeric, charged_seconds numeric, entry_id uuid, inbox_id uuid, inbox_digest bytea, headers jsonb,
        body text, body_size bigint
    )
), mine AS MATERIALIZED (
    SELECT verdict.*
    FROM attempts JOIN verdict ON attempts.tenant_id = verdict.tenant_id AND attempts.id = verdict.attempt_id
    -- Where somebody listens since we asked, it is left out, to be told when it is decided alone.
    WHERE %(telling)s OR (
        SELECT id FROM callback_endpoints AS endpoints WHERE endpoints.tenant_id = verdict.tenant_id LIMIT 1
    ) IS NULL
    ORDER BY attempts.tenant_id, attempts.id
    FOR UPDATE OF attempts
), attempt AS (
    UPDATE attempts SET
        status = 'submitted', fal_request_id = verdict.request_id, answered_at = coalesce(answered_at, now())
    FROM mine AS verdict
    WHERE attempts.tenant_id = verdict.tenant_id AND attempts.id = verdict.attempt_id
        AND attempts.status <> 'refused'
        AND (attempts.fal_request_id IS NULL OR attempts.fal_request_id = verdict.request_id)
        AND NOT EXISTS (
            SELECT FROM attempts AS other
            WHERE other.tenant_id = verdict.tenant_id AND other.fal_request_id = verdict.request_id
                AND other.id <> verdict.attempt_id
        )
    RETURNING attempts.tenant_id, attempts.id AS attempt_id, attempts.fal_account, attempts.created_at
), job AS (
    UPDATE jobs SET
        status = verdict.status, event_count = event_count + 1, finished_at = now(), due_at = NULL,
        lease_owner = NULL, waiting_for = NULL, output = verdict.output, error = verdict.error,
        charged = verdict.charged, charged_seconds = verdict.charged_seconds, fal_request_id = verdict.request_id,
        fal_account = attempt.fal_account, queue_position = NULL,
        submitted_at = coalesce(submitted_at, attempt.created_at)
    FROM verdict JOIN attempt USING (tenant_id, attempt_id)
    WHERE jobs.tenant_id = verdict.tenant_id AND jobs.id = verdict.job_id AND jobs.finished_at IS NULL
    RETURNING jobs.tenant_id, jobs.id, jobs.status, event_count, quoted, jobs.charged, verdict.attempt_id, (
        SELECT array_agg(endpoints.id) FROM callback_endpoints AS endpoints
        WHERE endpoints.tenant_id = jobs.tenant_id AND endpoints.disabled_at IS NULL
            AND endpoints.events @> ARRAY['job.' || verdict.status]
            AND (endpoints.url IS NOT NULL OR jobs.callback_url IS NOT NULL)
    ) AS listeners
), event AS (
    INSERT INTO job_events (tenant_id, job_id, number, status, why)
    SELECT tenant_id, id, event_count, status, 'fal reports ' || status FROM job
), entry AS (
    INSERT INTO ledger_entries (tenant_id, id, kind, from_side, to_side, amount, job_id, hold_amount)
    SELECT job.tenant_id, verdict.entry_id, CASE WHEN job.status = 'succeeded' THEN 'charge' ELSE 'release' END,
        'held', CASE WHEN job.status = 'succeeded' THEN 'spent' ELSE 'available' END, job.quoted, job.id, job.quoted
    FROM job JOIN verdict USING (tenant_id, attempt_id)
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
    FROM json_to_recordset(%(files)s) AS file (
        job_id uuid, number bigint, source_url text, content_type text, vanishes_at timestamptz
    ) JOIN job ON job.id = file.job_id
), released AS (
    DELETE FROM file_uses USING job WHERE file_uses.tenant_id = job.tenant_id AND file_uses.job_id = job.id
), kept AS (
    INSERT INTO webhook_inbox (id, digest, verdict, headers, body, body_size, request_id, tenant_id, attempt_id)
    SELECT inbox_id, inbox_digest, 'settled', headers, convert_to(body, 'UTF8'), body_size, request_id,
        verdict.tenant_id, attempt_id
    FROM verdict JOIN job USING (tenant_id, attempt_id)
    ON CONFLICT (digest) DO UPDATE SET deliveries = webhook_inbox.deliveries + 1, last_received_at = now()
)
SELECT tenant_id, id, listeners FROM job
"""


@dataclass(frozen=True, slots=True)
class Heard:
    """A member of a set: a report that fal signed, the attempt's token it came to, and what the inbox keeps of it."""

    tenant_id: UUID
    token_digest: bytes
    report: Report
    headers: dict[str, str]
    body: str
    body_size: int
    digest: bytes


async def settle(ask: Few, heard: Sequence[Heard]) -> list[UUID | None]:
    """The id of the job that each of *heard* has ended, with its money settled; None if this set leaves it out."""
    told = {"tenants": [one.tenant_id for one in heard], "digests": [one.token_digest for one in heard]}
    (attempts,) = await ask((FIND, told))
    taken = _taken(heard, {row.token_digest: row for row in attempts})
    if not taken:
        await ask(NOTHING_WRITTEN, commit=True)
        return [None] * len(heard)
    telling = any(attempt.somebody_listens for attempt in attempts)
    values = {
        "telling": telling,
        "verdicts": to_json([_verdict(heard[place], attempt) for place, attempt in taken.items()]).decode(),
        "files": to_json([file for place, attempt in taken.items() for file in _files(heard[place], attempt)]).decode(),
    }
    if telling:
        keys = [(attempt.tenant_id, attempt.job_id) for attempt in taken.values()]
        ended, jobs = await ask((SETTLE, values), queries.asking(keys))
        await ask(*outbox.adding(_news(ended, jobs)), commit=True)
    else:
        (ended,) = await ask((SETTLE, values), commit=True)
    ended_ids = {row.id for row in ended}
    jobs_of = {place: attempt.job_id for place, attempt in taken.items() if attempt.job_id in ended_ids}
    return [jobs_of.get(place) for place in range(len(heard))]


def _taken(heard: Sequence[Heard], attempts: Mapping[bytes, Any]) -> dict[int, Any]:
    """The attempts of those that are plainly a first verdict, by their place; of those that came twice, the first."""
    found: dict[int, Any] = {}
    seen: set[bytes] = set()
    for place, one in enumerate(heard):
        attempt = attempts.get(one.token_digest)
        if attempt is None or one.token_digest in seen:
            continue
        succeeded = one.report.outcome is Outcome.SUCCEEDED
        if succeeded and (not files(one.report.output) or _price(attempt) != attempt.quoted):
            continue
        found[place] = attempt
        seen.add(one.token_digest)
    return found


def _verdict(one: Heard, attempt: Any) -> dict[str, Any]:
    succeeded = one.report.outcome is Outcome.SUCCEEDED
    return {
        "tenant_id": attempt.tenant_id,
        "attempt_id": attempt.id,
        "job_id": attempt.job_id,
        "request_id": one.report.request_id,
        "status": one.report.outcome,
        "output": one.report.output,
        "error": one.report.error,
        "charged": attempt.quoted if succeeded else money.ZERO,
        "charged_seconds": attempt.seconds if succeeded else None,
        "entry_id": new_id(),
        "inbox_id": new_id(),
        "inbox_digest": "\\x" + one.digest.hex(),
        "headers": one.headers,
        "body": one.body,
        "body_size": one.body_size,
    }


def _files(one: Heard, attempt: Any) -> Iterator[dict[str, Any]]:
    if one.report.outcome is Outcome.SUCCEEDED:
        for number, file in enumerate(files(one.report.output), start=1):
            yield {
                "job_id": attempt.job_id,
                "number": number,
                "source_url": file.url,
                "content_type": file.content_type,
                "vanishes_at": vanishes_at(file.url, clock.now()),
            }


def _news(ended: Sequence[Any], jobs: Sequence[Any]) -> Iterator[outbox.News]:
    """What those who listen are told of the *jobs* that have *ended*."""
    listeners = {row.id: row.listeners for row in ended if row.listeners}
    for job in jobs:
        if job.id in listeners:
            yield Told(job, listeners[job.id], f"job.{job.status}", job.finished_at, job.event_count).news()


def _price(job: Any) -> Any:
    return money.video_cost(job.seconds, money.Price(job.price_per_second, job.base_amount, job.base_seconds))


def gatherer(db: Database) -> Gatherer[Heard, UUID | None]:
    """Where the verdicts that a process hears come together."""

    async def write(heard: Sequence[Heard]) -> list[UUID | None]:
        return await db.run_few(partial(settle, heard=heard))

    return Gatherer(write)
