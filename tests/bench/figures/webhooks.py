"""e: taking fal's reports. A webhook counts once it was answered 200 and its job has ended and is charged."""

import asyncio
import time
from typing import Any, Final

import httpx

from tests.bench import pgbench
from tests.bench.fal import webhook_request
from tests.bench.figure import Figure, Sample, Wrong
from tests.bench.load import Order
from tests.bench.stage import MADE_JOBS, TENANTS, Stage, among, orders, seen

CLIENTS: Final = 64


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


async def lived(stage: Stage, *, tenants: int = TENANTS) -> tuple[float, dict[str, Any]]:
    """Orders, sent to fal and reported on: submits a second, and what came of the load of reports."""
    count = how_many(stage)
    stage.put_off()
    async with stage.fal() as fal_port, stage.api(fal_port):
        order = Order(stage.api_port, orders(tenants), 202, '"queued"', most=count, seconds=60)
        ordered = await stage.load(order)
        with stage.worker(fal_port):
            taken = await taken_by_fal(fal_port, count)
            underway = f"SELECT 1 FROM jobs WHERE {among('id', ordered['ids'])} AND status = 'submitting' LIMIT 1"
            while stage.sql(underway):
                await asyncio.sleep(0.05)
        requests = [webhook_request(request_id, url) for request_id, url, _ in taken]
        # Some that aren't counted: what a process does once is a matter of its start.
        first = len(requests) // 4
        for part in (requests[:first], requests[first:]):
            found = await stage.load(
                Order(stage.api_port, part, 200, "settled", most=len(part), seconds=60, connections=CLIENTS)
            )
    ((succeeded, charged),) = stage.sql(f"""
        SELECT (SELECT count(*) FROM jobs WHERE {among("id", ordered["ids"])} AND status = 'succeeded'),
               (SELECT count(*) FROM ledger_entries WHERE {among("job_id", ordered["ids"])} AND kind = 'charge')
    """)
    if {succeeded, charged} != {len(taken)}:
        raise Wrong(f"{len(taken)} webhooks answered 200, {succeeded} jobs succeeded and {charged} charged")
    at = sorted(each for _, _, each in taken)
    return len(at) / (at[-1] - at[0]), found


async def taken_in(stage: Stage) -> Sample:
    _, found = await lived(stage)
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
