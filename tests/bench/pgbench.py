"""pgbench, the yardstick: one statement a transaction, from 64 clients, over the same tables in their own database."""

import asyncio
import re
import tempfile
from pathlib import Path
from typing import Final

from sqlalchemy.engine import make_url

from app.postgres.binaries import find_bin_dir
from tests.bench.figure import Omitted, Wrong

TENANT: Final = "CAST(lpad(CAST(:t AS text), 32, '0') AS uuid)"
"""The id of tenant number t, in every database of a bench."""

# An order as POST /v1/jobs writes it: balance, job, first event and hold.
ACCEPT: Final = f"""
\\set t random(1, :tenants)
WITH account AS (
    UPDATE accounts SET available = available - 2.10, held = held + 2.10
    WHERE tenant_id = {TENANT} RETURNING tenant_id
), job AS (
    INSERT INTO jobs (tenant_id, id, model, input, metadata, order_digest, status, event_count, seconds,
                      price_per_second, quoted, due_at)
    SELECT tenant_id, uuidv7(), 'fal-ai/kling-video/o3/4k/text-to-video',
           jsonb_build_object('prompt', repeat('a mecha lands ', 20), 'duration', '5'), '{{}}', sha256('x'), 'queued',
           1, 5, 0.42, 2.10, now() FROM account RETURNING tenant_id, id
), event AS (
    INSERT INTO job_events (tenant_id, job_id, number, status, why)
    SELECT tenant_id, id, 1, 'queued', 'accepted' FROM job
)
INSERT INTO ledger_entries (tenant_id, id, kind, from_side, to_side, amount, job_id)
SELECT tenant_id, uuidv7(), 'hold', 'available', 'held', 2.10, id FROM job;
"""

NUMBERED: Final = "CAST(lpad(to_hex({n}), 12, '0') || '70008000000000000001' AS uuid)"
# Jobs of known ids, as they are when their webhook comes.
MADE: Final = f"""
INSERT INTO jobs (tenant_id, id, model, input, order_digest, status, attempts, event_count, seconds,
                  price_per_second, quoted, submitted_at, due_at)
SELECT {TENANT.replace(":t", "1 + n % 1000")}, {NUMBERED.format(n="n")}, 'fal-ai/kling-video/o3/4k/text-to-video',
       jsonb_build_object('prompt', repeat('a mecha lands ', 20)), sha256('x'), 'submitted', 1, 3, 5, 0.42, 2.10,
       now(), now() + interval '1 hour' FROM generate_series(1, :jobs) AS n;
INSERT INTO ledger_entries (tenant_id, id, kind, from_side, to_side, amount, job_id)
SELECT tenant_id, uuidv7(), 'hold', 'available', 'held', 2.10, id FROM jobs;
UPDATE accounts SET held = held + 100000000;
"""
JOB_N: Final = NUMBERED.format(n="CAST(:n AS bigint)")
OF_N: Final = TENANT.replace(":t", "1 + CAST(:n AS bigint) % 1000")
# A result as a webhook settles it: the job and its charge.
SETTLE: Final = f"""
\\set i :i + 1
\\set n :base + :client_id * :per_client + :i
WITH job AS (
    UPDATE jobs SET status = 'succeeded', output = '{{}}', charged = 2.10, charged_seconds = 5, finished_at = now(),
                    due_at = NULL
    WHERE tenant_id = {OF_N} AND id = {JOB_N} AND status = 'submitted' RETURNING tenant_id, id
)
INSERT INTO ledger_entries (tenant_id, id, kind, from_side, to_side, amount, job_id, hold_amount)
SELECT tenant_id, uuidv7(), 'charge', 'held', 'spent', 2.10, id, 2.10 FROM job;
"""
LOOK: Final = f"""
\\set n random(1, :jobs)
SELECT * FROM jobs WHERE tenant_id = {OF_N} AND id = {JOB_N};
"""


async def rate(url: str, script: str, *, seconds: float = 1, each: int | None = None, **variables: int) -> float:
    """Transactions per second of *script*, for *seconds*, or *each* of them a client; all must succeed."""
    program = find_bin_dir() / "pgbench"
    if not program.is_file():
        raise Omitted("there is no pgbench beside this Postgres")
    at = make_url(url)
    bound = ["-t", str(each)] if each else ["-T", str(max(1, round(seconds)))]
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        process = await asyncio.create_subprocess_exec(
            str(program),
            "-n",
            "-M",
            "prepared",
            "-c",
            "64",
            "-j",
            "2",
            *bound,
            "-f",
            file.name,
            *(f"-D{name}={value}" for name, value in variables.items()),
            "-h",
            str(at.query["host"]),
            "-p",
            str(at.query["port"]),
            "-U",
            str(at.username),
            str(at.database),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
    found = re.search(rb"tps = ([\d.]+)", out)
    if process.returncode or not found:
        raise Wrong(f"pgbench: {err.decode()[-300:]}")
    return float(found[1])


def folder_of(url: str) -> Path:
    """Where the server behind *url* listens."""
    return Path(str(make_url(url).query["host"]))
