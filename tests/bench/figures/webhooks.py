"""e: taking fal's reports. A webhook counts once it was answered 200 and its job has ended and is charged."""

import asyncio
import time

import httpx

from tests.bench import pgbench
from tests.bench.fal import webhook_request
from tests.bench.figure import Figure, Sample, Wrong
from tests.bench.load import Order
from tests.bench.stage import MADE_JOBS, Stage, orders, seen

CLIENTS = 64


def how_many(stage: Stage) -> int:
    """Webhooks in one round: a second or so of today's rate in a quick run."""
    return 128 if stage.quick else 3_200


async def taken_by_fal(fal_port: int, count: int, within_s: float = 60) -> list[tuple[str, str, float]]:
    """What fal has, once it has *count* requests."""
    until = time.monotonic() + within_s
    async with httpx.AsyncClient(trust_env=False) as http:
        while time.monotonic() < until:
            found: list[tuple[str, str, float]] = (await http.get(f"http://127.0.0.1:{fal_port}/taken")).json()
            if len(found) >= count:
                return found
            await asyncio.sleep(0.1)
    raise Wrong(f"fal had {len(found)} of {count} submits after {within_s:g} s")


async def taken_in(stage: Stage) -> Sample:
    count = how_many(stage)
    # What other figures left queued would be submitted first.
    stage.sql("UPDATE jobs SET due_at = now() + interval '1 day' WHERE status = 'queued'")
    async with stage.fal() as fal_port, stage.api(fal_port):
        await stage.load(Order(stage.api_port, orders(), 202, '"queued"', most=count, seconds=60))
        with stage.worker(fal_port):
            taken = await taken_by_fal(fal_port, count)
            while stage.sql("SELECT 1 FROM jobs WHERE status IN ('submitting') LIMIT 1"):
                await asyncio.sleep(0.05)
        requests = [webhook_request(request_id, url) for request_id, url, _ in taken]
        found = await stage.load(
            Order(stage.api_port, requests, 200, "settled", most=len(requests), seconds=60, connections=CLIENTS)
        )
    names = ", ".join(f"'{request_id}'" for request_id, _, _ in taken)
    ((charged,),) = stage.sql(f"""
        SELECT count(*) FROM jobs JOIN ledger_entries AS l ON l.job_id = jobs.id AND l.kind = 'charge'
        WHERE jobs.status = 'succeeded' AND jobs.fal_request_id IN ({names})
    """)
    # fal's ids begin anew with each of its lives, and jobs of an earlier round keep theirs.
    stage.sql("UPDATE jobs SET fal_request_id = 'old-' || id WHERE fal_request_id LIKE 'req-%'")
    stage.sql("UPDATE attempts SET fal_request_id = 'old-' || id WHERE fal_request_id LIKE 'req-%'")
    if charged != len(taken):
        raise Wrong(f"{len(taken)} webhooks answered 200, {charged} jobs charged")
    return Sample(found["per_s"], seen(found))


async def settled_by_postgres(stage: Stage) -> Sample:
    each = how_many(stage) // CLIENTS
    base = stage.kept.setdefault("settled", 0)
    stage.kept["settled"] += how_many(stage)
    if stage.kept["settled"] > MADE_JOBS:
        raise Wrong("too few jobs were made for the yardstick")
    per_s = await pgbench.rate(stage.yardstick, pgbench.SETTLE, each=each, i=0, base=base, per_client=each)
    return Sample(per_s)


FIGURES = (
    Figure(
        "e",
        "webhooks/s: signature, inbox, job, ledger, event, then 200",
        "pgbench, update and ledger insert, 64 clients",
        taken_in,
        settled_by_postgres,
        at_least=0.5,
    ),
)
