"""
A past as a deployment has it, made in a few strokes of SQL: consistent to the micro-dollar, so that `verify` holds.

    python -m tests.history JOBS URL      # into the empty, migrated database at URL

Every kind of life is among the jobs, in about the proportions of a real day: most succeed, some fail, some had to be
sent again; of the newest, some are under way. They are spread over DAYS days and over tenants by a power law: the first
has a quarter of all, the last one in sixty. Nothing of it was pruned yet.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import psycopg

TENANTS: Final = 20
DAYS: Final = 40
"""A little more than callbacks and webhooks are kept, so that retention finds something to do."""
NEWEST: Final = 20_000
"""Only among so many of the newest jobs are there some that haven't ended."""
MANY: Final = 10_000
"""From so many jobs on, indexes are made after the rows: sorted, which takes a fraction of the time."""
GOLDEN: Final = 0.6180339887498949
"""Its multiples are spread evenly over tenants, however many of them are looked at."""

# Of 200 jobs; what is left over succeeds.
KIND: Final = """
    CASE WHEN n % 200 BETWEEN 1 AND 5 AND n <= {jobs} - {newest} THEN 'succeeded' ELSE CASE n % 200
        WHEN 1 THEN 'queued' WHEN 2 THEN 'submitting' WHEN 3 THEN 'submit_unknown' WHEN 4 THEN 'submitted'
        WHEN 5 THEN 'in_progress' WHEN 6 THEN 'expired' WHEN 7 THEN 'canceled' WHEN 8 THEN 'refused'
        WHEN 9 THEN 'failed' WHEN 10 THEN 'failed' WHEN 11 THEN 'failed' WHEN 12 THEN 'again' WHEN 13 THEN 'again'
        WHEN 14 THEN 'found' WHEN 15 THEN 'measured' WHEN 16 THEN 'measured' WHEN 17 THEN 'back'
        ELSE 'succeeded'
    END END
"""
# kind, status, life as statuses in order, attempts as statuses in order
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
# number, model, price per second
MODELS: Final = """
    (0, 'fal-ai/kling-video/o3/4k/text-to-video', 0.42), (1, 'fal-ai/kling-video/v3/pro/text-to-video', 0.112),
    (2, 'fal-ai/kling-video/v3/standard/text-to-video', 0.084), (3, 'fal-ai/kling-video/v3/pro/image-to-video', 0.112)
"""


def _id(kind: int, number: str, at: str | None = None) -> str:
    """SQL for an id that ends with *number*, and sorts by the time *at*, or else as numbered."""
    time = number if at is None else f"floor(extract(epoch FROM {at}) * 1000)::bigint"
    return f"CAST(lpad(to_hex({time}), 12, '0') || '7{kind:03}8000' || lpad(to_hex({number}), 12, '0') AS uuid)"


def tenant_id(place: int) -> UUID:
    """The tenant with the *place*-most jobs."""
    return UUID(f"{place:012x}70018000{place:012x}")


def tenant_of(n: int) -> UUID:
    """Whose job number *n* is."""
    return tenant_id(math.floor((TENANTS + 1) ** (n * GOLDEN % 1)))


ENDED: Final = "status IN ('succeeded', 'failed', 'canceled', 'expired')"
AT_FAL: Final = "'submitted' = ANY(tried)"

TENANT_ROWS: Final = (
    f"INSERT INTO tenants (id, name) SELECT {_id(1, 'n')}, 'scale-' || n FROM generate_series(1, {TENANTS}) n",
    # Each has one for its jobs' own callback_urls; every other one hears of all its jobs.
    f"""
    INSERT INTO callback_endpoints (tenant_id, id, url, events, secret)
    SELECT {_id(1, "n")}, {_id(2, "n")}, NULL,
        '{{job.succeeded,job.failed,job.canceled,job.expired}}'::text[], sha256('x')
    FROM generate_series(1, {TENANTS}) n
    UNION ALL
    SELECT {_id(1, "n")}, {_id(1, "n")}, 'https://caller.example/all',
        '{{job.succeeded,job.failed,job.canceled,job.expired,job.safe}}', sha256('x')
    FROM generate_series(2, {TENANTS}, 2) n
    """,
)
# What every table below is made from: a row for each job.
PLAN: Final = f"""
    CREATE UNLOGGED TABLE plan AS
    SELECT timed.*, {_id(2, "n", "at")} AS id, at + interval '2 seconds' AS sent_at,
        CASE WHEN ended THEN at + 40 * interval '1 second' + n % 60 * interval '1 second' END AS ended_at,
        seconds * price AS quoted,
        CASE WHEN status = 'succeeded' THEN seconds - CASE WHEN kind = 'measured' THEN 1 ELSE 0 END END AS paid_seconds,
        status = 'succeeded' AND n <= {{jobs}} - 100 AND n % 1000 <> 999 AS safe,
        CASE WHEN n % 5 = 0 THEN 'https://caller.example/jobs' END AS callback_url
    FROM (
        SELECT n, {_id(1, "place")} AS tenant_id, place, l.*, m.model, m.price, l.{ENDED} AS ended,
            string_to_array(l.events, ' ') AS lived,
            CASE WHEN l.tries = '' THEN ARRAY[]::text[] ELSE string_to_array(l.tries, ' ') END AS tried,
            5 + n % 6 AS seconds,
            CASE WHEN l.{ENDED} THEN '{{until}}'::timestamptz - ({{jobs}} - n) * (interval '{DAYS} days' / {{jobs}})
                ELSE '{{until}}'::timestamptz - n % 600 * interval '1 second' END AS at
        FROM (
            -- A retry, one of 200, has the tenant of the job it tries again, nine before it.
            SELECT n, floor(power({TENANTS + 1},
                whose * {GOLDEN}::float8 - floor(whose * {GOLDEN}::float8)))::bigint AS place
            FROM generate_series(1, {{jobs}}) AS n,
                LATERAL (SELECT CASE n % 200 WHEN 20 THEN n - 9 ELSE n END) AS w (whose)
        ) AS numbered
        JOIN (VALUES {LIVES}) AS l (kind, status, events, tries) ON l.kind = {KIND}
        JOIN (VALUES {MODELS}) AS m (number, model, price) ON m.number = n % 7 % 4
    ) AS timed
"""
JOBS: Final = f"""
    INSERT INTO jobs (tenant_id, id, model, input, metadata, end_user, priority, idempotency_key, order_digest,
        retry_of, callback_url, status, output, error, attempts, event_count, fal_request_id, seconds, measured,
        price_per_second, quoted, charged, charged_seconds, created_at, submitted_at, started_at, finished_at, due_at,
        safe_at, safe_error, measured_seconds)
    SELECT tenant_id, id, model,
        jsonb_build_object('prompt', 'A mecha lands on the ground to save the city, take ' || n
            || repeat(', and the camera follows it', n % 20), 'duration', seconds, 'aspect_ratio', '16:9'),
        CASE WHEN n % 3 = 0 THEN jsonb_build_object('campaign', 'launch-' || n % 50, 'shot', n::text) ELSE '{{}}' END,
        CASE WHEN n % 2 = 0 THEN 'user-' || n % 4999 END, CASE WHEN n % 20 = 0 THEN 0 ELSE 1 END,
        CASE WHEN n % 5 <> 4 THEN 'order-' || n END, sha256(n::text::bytea),
        CASE WHEN n % 200 = 20 THEN (SELECT p.id FROM plan p WHERE p.n = plan.n - 9) END, callback_url, status,
        CASE WHEN status = 'succeeded' THEN jsonb_build_object('video', jsonb_build_object('url',
            'https://v3b.fal.media/files/b/0a8d04e2/' || n || '.mp4', 'content_type', 'video/mp4')) END,
        CASE WHEN status IN ('failed', 'canceled', 'expired') THEN
            '{{"code": "content_policy_violation", "title": "No.", "detail": null, "retryable": false}}'::jsonb END,
        cardinality(tried), cardinality(lived), CASE WHEN {AT_FAL} THEN 'req-' || n END,
        seconds, kind = 'measured', price, quoted,
        CASE WHEN status = 'succeeded' THEN paid_seconds * price WHEN ended THEN 0 END, paid_seconds,
        at, CASE WHEN {AT_FAL} THEN sent_at END, CASE WHEN 'in_progress' = ANY(lived) THEN sent_at END, ended_at,
        CASE WHEN NOT ended AND status <> 'submit_unknown' THEN now() + interval '1 minute' END,
        CASE WHEN safe THEN ended_at + interval '3 seconds' END,
        CASE WHEN status = 'succeeded' AND n % 1000 = 999 THEN '{{"code": "gone", "detail": "404"}}'::jsonb END,
        CASE WHEN safe THEN paid_seconds + 0.042 END
    FROM plan ORDER BY n
"""
ATTEMPTS: Final = f"""
    INSERT INTO attempts (tenant_id, id, job_id, number, token_digest, status, fal_request_id, status_url, response_url,
        cancel_url, error, sent_urls, created_at, answered_at)
    SELECT tenant_id, {_id(3, "n * 10 + number", "at")}, id, number, sha256((n || '/' || number)::bytea), try,
        CASE WHEN taken THEN 'req-' || n END, url || '/status', url, url || '/cancel',
        CASE try WHEN 'refused' THEN '{{"code": "content_policy_violation", "title": "No."}}'::jsonb END, '{{}}', at,
        CASE WHEN try <> 'submitting' THEN sent_at END
    FROM plan, unnest(tried) WITH ORDINALITY AS t (try, number), LATERAL (
        SELECT try = 'submitted' AS taken,
            CASE try WHEN 'submitted' THEN 'https://queue.fal.run/fal-ai/kling-video/requests/req-' || n END AS url
    ) AS told
    ORDER BY n
"""
EVENTS: Final = """
    INSERT INTO job_events (tenant_id, job_id, number, status, why, created_at, transaction_id)
    SELECT tenant_id, id, number, event, 'fal reports ' || event,
        CASE number WHEN cardinality(lived) THEN coalesce(ended_at, sent_at) ELSE at + number * interval '1 second' END,
        -- As if they had come in so many transactions as are over by now, in the order of the jobs.
        1 + n * 600::bigint / {jobs}
    FROM plan, unnest(lived) WITH ORDINALITY AS t (event, number) ORDER BY n, number
"""
LEDGER: Final = f"""
    INSERT INTO ledger_entries
        (tenant_id, id, kind, from_side, to_side, amount, job_id, hold_amount, charge_amount, created_at)
    SELECT p.tenant_id, e.id, e.kind, from_side, to_side, amount, p.id, hold_amount, charge_amount, e.at
    FROM plan p, LATERAL (SELECT paid_seconds * price AS paid) AS c, LATERAL (
        SELECT {_id(4, "n", "p.at")} AS id, 'hold' AS kind, 'available' AS from_side, 'held' AS to_side,
            quoted AS amount, NULL::numeric AS hold_amount, NULL::numeric AS charge_amount, p.at
        UNION ALL
        SELECT {_id(5, "n", "ended_at")}, 'charge', 'held', 'spent', paid, quoted, NULL, ended_at WHERE paid IS NOT NULL
        UNION ALL
        SELECT {_id(6, "n", "ended_at")}, 'release', 'held', 'available', quoted - coalesce(paid, 0), quoted, paid,
            ended_at WHERE ended AND coalesce(paid, 0) < quoted
    ) AS e
    ORDER BY n
"""
ACCOUNTS: Final = (
    f"""
    INSERT INTO ledger_entries (tenant_id, id, kind, from_side, to_side, amount, created_at)
    SELECT id, {_id(7, "row_number() OVER (ORDER BY id)")}, 'deposit', 'outside', 'available', 1000,
        '{{until}}'::timestamptz - interval '{DAYS + 1} days'
    FROM tenants
    """,
    """
    INSERT INTO accounts (tenant_id, available, held, spent)
    SELECT t.id, 1000 - coalesce(sum(CASE WHEN ended THEN coalesce(paid_seconds * price, 0) ELSE quoted END), 0),
        coalesce(sum(quoted) FILTER (WHERE NOT ended), 0), coalesce(sum(paid_seconds * price), 0)
    FROM tenants t LEFT JOIN plan ON tenant_id = t.id GROUP BY t.id
    """,
)
OUTPUTS: Final = """
    INSERT INTO outputs (tenant_id, job_id, number, source_url, content_type, vanishes_at, created_at, path, size,
        sha256, measured_seconds, safe_at, error, given_up_at, due_at)
    SELECT tenant_id, id, 1, 'https://v3b.fal.media/files/b/0a8d04e2/' || n || '.mp4', 'video/mp4',
        ended_at + interval '7 days', ended_at, CASE WHEN safe THEN id || '/1.mp4' END,
        CASE WHEN safe THEN 13096952 END, CASE WHEN safe THEN sha256(n::text::bytea) END,
        CASE WHEN safe THEN paid_seconds + 0.042 END, CASE WHEN safe THEN ended_at + interval '3 seconds' END,
        CASE WHEN lost THEN '{"code": "gone", "detail": "404"}'::jsonb END,
        CASE WHEN lost THEN ended_at + interval '1 day' END,
        CASE WHEN NOT safe AND NOT lost THEN now() + interval '1 minute' END
    FROM plan, LATERAL (SELECT n % 1000 = 999) AS l (lost) WHERE status = 'succeeded' ORDER BY n
"""
# One in two hundred was given up after some tries; of the newest, one in ten waits for its next.
DELIVERIES: Final = f"""
    CREATE UNLOGGED TABLE told AS
    SELECT tenant_id, {_id(8, "n * 10 + k", "t.at")} AS id, t.*, plan.id AS job_id, n,
        CASE WHEN n > {{jobs}} - 2000 AND n % 10 = 0 THEN 'pending' WHEN n % 200 = 100 THEN 'dead' ELSE 'delivered' END
            AS became
    FROM plan, LATERAL (
        SELECT 1 AS k, {_id(2, "place")} AS endpoint_id, callback_url AS url, 'job.' || status AS type,
            cardinality(lived) AS sequence, ended_at AS at WHERE ended AND callback_url IS NOT NULL
        UNION ALL
        SELECT 2, tenant_id, NULL, 'job.' || status, cardinality(lived), ended_at WHERE ended AND place % 2 = 0
        UNION ALL
        SELECT 3, tenant_id, NULL, 'job.safe', cardinality(lived) + 1, ended_at + interval '3 seconds'
        WHERE safe AND place % 2 = 0
    ) AS t
    WHERE n > {{jobs}} - {{kept}}
"""
TOLD: Final = (
    """
    INSERT INTO callback_deliveries (tenant_id, id, endpoint_id, job_id, sequence, url, type, body, status, dead_why,
        created_at, queued_at, delivered_at, due_at, tries)
    SELECT tenant_id, id, endpoint_id, job_id, sequence, url, type,
        json_build_object('type', type, 'timestamp', at, 'data', json_build_object('sequence', sequence, 'job',
            json_build_object('id', job_id, 'prompt', 'A mecha lands on the ground to save the city, take ' || n,
                'output', 'https://v3b.fal.media/files/b/0a8d04e2/' || n || '.mp4',
                'rest', repeat('"x": null, ', 40)))),
        became, CASE became WHEN 'dead' THEN 'tried for a day' END, at, at,
        CASE became WHEN 'delivered' THEN at + interval '1 second' END,
        CASE became WHEN 'pending' THEN now() + n % 100 * interval '1 minute' END,
        CASE became WHEN 'dead' THEN 12 ELSE 1 END
    FROM told ORDER BY n
    """,
    f"""
    INSERT INTO callback_attempts (tenant_id, id, delivery_id, status_code, error, body, duration_ms, created_at)
    SELECT tenant_id, {_id(9, "n * 100 + k * 20 + try", "at")}, id, CASE became WHEN 'delivered' THEN 200 ELSE 503 END,
        CASE WHEN became <> 'delivered' THEN 'answered 503' END, 'ok', 41, at + interval '1 second'
    FROM told, generate_series(1, CASE became WHEN 'dead' THEN 12 ELSE 1 END) AS try
    """,
    "DROP TABLE told",
)
# A digest begins as the id of its attempt does.
BEGINS: Final = f"""substring(uuid_send({_id(3, "n * 10 + cardinality(tried)", "at")}) FROM 1 FOR 8)"""
INBOX: Final = f"""
    INSERT INTO webhook_inbox (id, digest, verdict, headers, body, body_size, request_id, tenant_id, attempt_id,
        received_at, last_received_at)
    SELECT {_id(10, "n", "ended_at")}, {BEGINS} || substring(sha256(('webhook ' || n)::bytea) FROM 9), 'settled',
        '{{"content-type": "application/json", "x-fal-webhook-timestamp": "1764000000", "x-fal-webhook-user-id": "u"}}',
        body::bytea, length(body), 'req-' || n, tenant_id, {_id(3, "n * 10 + cardinality(tried)", "at")},
        ended_at, ended_at
    FROM plan, LATERAL (
        SELECT '{{"request_id": "req-' || n || '", "status": "OK", "payload": {{"video": {{"url": '
            || '"https://v3b.fal.media/files/b/0a8d04e2/' || n || '.mp4"}}}}}}' || repeat(' ', 100)
    ) AS b (body)
    WHERE ended AND {AT_FAL} AND n > {{jobs}} - {{kept}} ORDER BY n
"""

BEFORE: Final = (*TENANT_ROWS, PLAN, "ALTER TABLE plan ADD PRIMARY KEY (n)", "ANALYZE plan")
SIDE_BY_SIDE: Final = ((JOBS,), (EVENTS,), (LEDGER, *ACCOUNTS), (ATTEMPTS,), (DELIVERIES, *TOLD), (OUTPUTS,), (INBOX,))
# Foreign keys are looked up row by row, which would take most of the time; that they hold is for verify to say.
SESSION: Final = (
    "SET session_replication_role = replica",
    "SET synchronous_commit = off",
    "SET maintenance_work_mem = '512MB'",
    "SET work_mem = '128MB'",
)


def fill(url: str, jobs: int, *, until: datetime | None = None, kept: int | None = None) -> None:
    """
    Put *jobs* jobs, the newest of *until* or some minutes ago, into the empty database at *url*.

    The callbacks and webhooks of all of them, or of the newest *kept*, as if older ones had been pruned.
    """
    newest = until or datetime.now(UTC) - timedelta(minutes=5)
    place = url.replace("+psycopg", "")
    at = {"{jobs}": str(jobs), "{until}": newest.isoformat(), "{newest}": str(NEWEST), "{kept}": str(kept or jobs)}

    def do(statements: Sequence[str]) -> None:
        with psycopg.connect(place, autocommit=True) as connection:
            for statement in (*SESSION, *statements):
                for name, value in at.items():
                    statement = statement.replace(name, value)  # noqa: PLW2901
                connection.execute(statement.encode())

    do(BEFORE)
    if jobs < MANY:
        do([statement for statements in SIDE_BY_SIDE for statement in statements])
        do(["DROP TABLE plan", "VACUUM ANALYZE"])
        return
    with ThreadPoolExecutor(2) as pool:
        keys_and_indexes, between = bare(place)
        # As autovacuum would have done by the time there are so many.
        vacuum = [[f"VACUUM ANALYZE {table}"] for table in keys_and_indexes]
        for step in (SIDE_BY_SIDE, [*keys_and_indexes.values()], between, vacuum):
            list(pool.map(do, step))
    do(["DROP TABLE plan"])


def bare(place: str) -> tuple[dict[str, list[str]], list[list[str]]]:
    """Take all keys and indexes away; what makes them again: those of each table, then what is between tables."""
    with psycopg.connect(place, autocommit=True) as connection:
        keys = connection.execute(KEYS).fetchall()
        indexes = connection.execute(INDEXES).fetchall()
        for table, name, _, _ in keys:
            connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}".encode())
        for _, name, _ in indexes:
            connection.execute(f"DROP INDEX {name}".encode())
    own: defaultdict[str, list[str]] = defaultdict(list)
    between: list[list[str]] = []
    for table, name, kind, definition in keys:
        make = f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}"
        if kind == "f":
            between.append([make])
        else:
            own[table].append(make)
    for table, _, definition in indexes:
        own[table].append(definition)
    return own, between


# Foreign keys first, for they stand on the others.
KEYS: Final = """
    SELECT conrelid::regclass::text, quote_ident(conname), contype::text, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND contype IN ('f', 'p', 'u') AND conrelid <> 'plan'::regclass
    ORDER BY contype <> 'f'
"""
INDEXES: Final = """
    SELECT indrelid::regclass::text, indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
    WHERE indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)
        AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
"""


if __name__ == "__main__":
    fill(sys.argv[2], int(sys.argv[1]))
