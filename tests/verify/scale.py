"""
Many consistent jobs in one stroke of SQL, and how long `verify` takes for them: `make verify-scale`.

Every kind of life is among them, in about the proportions of a real day: most succeed, some fail, some had to be
sent again, some are under way.
"""

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import psycopg

from app.db import Database
from app.migrate import upgrade
from app.postgres import EmbeddedPostgres
from app.verify.verifier import verify

TENANTS: Final = 20
# Of 200 jobs; what is left over succeeds.
KINDS: Final = """
    CASE n % 200
        WHEN 1 THEN 'queued' WHEN 2 THEN 'submitting' WHEN 3 THEN 'submit_unknown' WHEN 4 THEN 'submitted'
        WHEN 5 THEN 'in_progress' WHEN 6 THEN 'expired' WHEN 7 THEN 'canceled' WHEN 8 THEN 'refused'
        WHEN 9 THEN 'failed' WHEN 10 THEN 'failed' WHEN 11 THEN 'failed' WHEN 12 THEN 'again' WHEN 13 THEN 'again'
        WHEN 14 THEN 'found' WHEN 15 THEN 'measured' WHEN 16 THEN 'measured' WHEN 17 THEN 'back'
        ELSE 'succeeded'
    END
"""
# kind, status, lives as statuses in order, attempts as statuses in order
LIVES: Final = """
    ('queued', 'queued', 'queued', ''),
    ('submitting', 'submitting', 'queued submitting', 'submitting'),
    ('submit_unknown', 'submit_unknown', 'queued submitting submit_unknown', 'unknown'),
    ('submitted', 'submitted', 'queued submitting submitted', 'submitted'),
    ('in_progress', 'in_progress', 'queued submitting submitted in_progress', 'submitted'),
    ('expired', 'expired', 'queued expired', ''),
    ('canceled', 'canceled', 'queued submitting submitted canceled', 'submitted'),
    ('refused', 'failed', 'queued submitting failed', 'refused'),
    ('failed', 'failed', 'queued submitting submitted in_progress failed', 'submitted'),
    ('again', 'succeeded', 'queued submitting queued submitting submitted succeeded', 'refused submitted'),
    ('found', 'succeeded', 'queued submitting submit_unknown succeeded', 'submitted'),
    ('measured', 'succeeded', 'queued submitting submitted in_progress succeeded', 'submitted'),
    ('back', 'succeeded', 'queued submitting submitted in_progress submitted in_progress succeeded', 'submitted'),
    ('succeeded', 'succeeded', 'queued submitting submitted in_progress succeeded', 'submitted')
"""


def named(kind: int, number: str) -> str:
    """SQL for an id that sorts as it was made."""
    return f"CAST(lpad(to_hex({number}), 12, '0') || '70008000{kind:012}' AS uuid)"


FILL: Final = (
    # Foreign keys are looked up row by row, which would take most of the time; that they hold is for verify to say.
    "SET session_replication_role = replica",
    "SET synchronous_commit = off",
    f"INSERT INTO tenants (id, name) SELECT {named(1, 'n')}, 'scale-' || n FROM generate_series(1, {TENANTS}) n",
    f"""
    CREATE TEMP TABLE plan AS
    SELECT n, t.id AS tenant_id, {named(2, "n")} AS id, l.*,
        string_to_array(l.events, ' ') AS lived,
        CASE WHEN l.tries = '' THEN ARRAY[]::text[] ELSE string_to_array(l.tries, ' ') END AS tried,
        5 + n % 6 AS seconds
    FROM generate_series(1, {{jobs}}) AS n
    JOIN (SELECT id, row_number() OVER (ORDER BY id) AS place FROM tenants WHERE name LIKE 'scale-%') AS t
        ON t.place = 1 + n % {TENANTS}
    JOIN (VALUES {LIVES}) AS l (kind, status, events, tries) ON l.kind = {KINDS}
    """,
    """
    INSERT INTO jobs (tenant_id, id, model, input, order_digest, status, output, error, attempts, event_count,
        fal_request_id, seconds, measured, price_per_second, quoted, charged, charged_seconds, created_at,
        submitted_at, started_at, finished_at, due_at)
    SELECT tenant_id, id, 'fal-ai/kling-video/o3/4k/text-to-video',
        jsonb_build_object('prompt', 'A mecha lands on the ground to save the city, take ' || n, 'duration', seconds),
        sha256(n::text::bytea), status,
        CASE WHEN status = 'succeeded' THEN jsonb_build_object('video', jsonb_build_object('url',
            'https://v3b.fal.media/files/b/0a8d04e2/' || n || '.mp4', 'content_type', 'video/mp4')) END,
        CASE WHEN status = 'failed' THEN '{"code": "content_policy_violation", "title": "No."}'::jsonb END,
        cardinality(tried), cardinality(lived),
        CASE WHEN 'submitted' = ANY(tried) THEN 'req-' || n END,
        seconds, kind = 'measured', 0.42, seconds * 0.42,
        CASE WHEN status = 'succeeded' THEN (seconds - CASE WHEN kind = 'measured' THEN 1 ELSE 0 END) * 0.42
            WHEN status IN ('failed', 'canceled', 'expired') THEN 0 END,
        CASE WHEN status = 'succeeded' THEN seconds - CASE WHEN kind = 'measured' THEN 1 ELSE 0 END END,
        now() - interval '1 hour',
        CASE WHEN 'submitted' = ANY(tried) THEN now() END,
        CASE WHEN 'in_progress' = ANY(lived) THEN now() END,
        CASE WHEN status IN ('succeeded', 'failed', 'canceled', 'expired') THEN now() END,
        CASE WHEN status IN ('queued', 'submitting', 'submitted', 'in_progress') THEN now() + interval '1 minute' END
    FROM plan ORDER BY n
    """,
    f"""
    INSERT INTO attempts (tenant_id, id, job_id, number, token_digest, status, fal_request_id)
    SELECT tenant_id, {named(3, "n * 10 + number")}, id, number, sha256((n || '/' || number)::bytea), try,
        CASE WHEN try = 'submitted' THEN 'req-' || n END
    FROM plan, unnest(tried) WITH ORDINALITY AS t (try, number) ORDER BY n
    """,
    """
    INSERT INTO job_events (tenant_id, job_id, number, status, why)
    SELECT tenant_id, id, number, event, 'made for scale'
    FROM plan, unnest(lived) WITH ORDINALITY AS t (event, number) ORDER BY number, n
    """,
    f"""
    INSERT INTO ledger_entries
        (tenant_id, id, kind, from_side, to_side, amount, job_id, hold_amount, charge_amount)
    SELECT tenant_id, {named(4, "row_number() OVER ()")}, 'hold', 'available', 'held', quoted, id,
        CAST(NULL AS numeric), CAST(NULL AS numeric) FROM jobs
    UNION ALL
    SELECT tenant_id, {named(5, "row_number() OVER ()")}, 'charge', 'held', 'spent', charged, id, quoted, NULL
    FROM jobs WHERE status = 'succeeded'
    UNION ALL
    SELECT tenant_id, {named(6, "row_number() OVER ()")}, 'release', 'held', 'available', quoted - charged, id, quoted,
        CASE WHEN status = 'succeeded' THEN charged END
    FROM jobs WHERE charged < quoted
    """,
    """
    INSERT INTO accounts (tenant_id, available, held, spent)
    SELECT tenant_id, -sum(coalesce(charged, quoted)), coalesce(sum(quoted) FILTER (WHERE charged IS NULL), 0),
        coalesce(sum(charged), 0)
    FROM jobs GROUP BY tenant_id
    """,
    "DROP TABLE plan",
)


def fill(url: str, jobs: int) -> None:
    """Put *jobs* jobs, whole and consistent, into the empty database at *url*."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        for statement in FILL:
            connection.execute(statement.replace("{jobs}", str(jobs)).encode())
        connection.commit()
        connection.autocommit = True
        # As autovacuum would have done by the time there are so many.
        connection.execute("VACUUM ANALYZE")


async def _proved(url: str) -> None:
    db = Database(url, pool=1)
    try:
        report = await verify(db)
    finally:
        await db.close()
    counted = ", ".join(f"{count:,} {name}" for name, count in report.counts.items())
    print(f"{counted}: {'clean' if report.ok else 'NOT CLEAN'} in {report.took_s:.1f} s")
    for finding in report.findings:
        print(f"  {finding.check.severity} {finding.check.name}: {finding.count}")
    if not report.ok:
        raise SystemExit(1)


def main(jobs: int) -> None:
    """Fill a database of its own and prove it."""
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder, "postgres")) as postgres:
        upgrade(postgres.url)
        since = time.monotonic()
        fill(postgres.url, jobs)
        print(f"{jobs:,} jobs made in {time.monotonic() - since:.0f} s")
        asyncio.run(_proved(postgres.url))


if __name__ == "__main__":
    main(int(sys.argv[1]))
