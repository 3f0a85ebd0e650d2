"""a to d: taking orders. An order counts once it was answered 202 and its job is found in the database."""

import sys
from typing import Any, Final

from tests.bench import pgbench
from tests.bench.figure import Figure, Sample, Wrong
from tests.bench.load import Order
from tests.bench.stage import TENANTS, Stage, among, gets, orders, seen
from tests.ports import free_port

RIVALS: Final = "tests.bench.rivals"


async def accepted(stage: Stage, *, tenants: int = TENANTS, rate: float | None = None) -> dict[str, Any]:
    """What came of a load of orders, after each accepted one was found, with its event and its hold."""
    order = Order(stage.api_port, orders(tenants), 202, '"queued"', seconds=stage.seconds, rate=rate)
    found = await stage.load_warm(order)
    job_is_one = among("job_id", found["ids"])
    (counts,) = stage.sql(f"""
        SELECT (SELECT count(*) FROM jobs WHERE {among("id", found["ids"])}),
               (SELECT count(*) FROM job_events WHERE {job_is_one}),
               (SELECT count(*) FROM ledger_entries WHERE {job_is_one} AND kind = 'hold')
    """)
    if {*counts} != {found["right"]}:
        raise Wrong(f"{found['right']} accepted, but {counts} jobs, events and holds in the database")
    stage.kept.setdefault("ids", found["ids"][:2000])
    return found


async def many_tenants(stage: Stage) -> Sample:
    async with stage.api():
        found = await accepted(stage)
    stage.kept["a"] = found["per_s"]
    return Sample(found["per_s"], seen(found))


async def single_tenant(stage: Stage) -> Sample:
    async with stage.api():
        found = await accepted(stage, tenants=1)
    return Sample(found["per_s"], seen(found))


async def postgres_itself(stage: Stage) -> Sample:
    return Sample(await pgbench.rate(stage.yardstick, pgbench.ACCEPT, seconds=stage.seconds, tenants=TENANTS))


async def tutorial(stage: Stage) -> Sample:
    port = free_port()
    async with stage.fal() as fal_port:
        command = (sys.executable, "-m", f"{RIVALS}.tutorial", str(port))
        settings = stage.settings(fal_port, DATABASE_URL=stage.database("tutorial"))
        if not stage.kept.get("tutorial"):
            stage.kept["tutorial"] = not stage.sql("CREATE DATABASE tutorial", stage.postgres.url)
        async with stage.serving("tutorial", *command, port=port, path="/livez", environment=settings):
            found = await stage.load_warm(Order(port, orders(1), 202, '"id"', seconds=stage.seconds))
    return Sample(found["per_s"], seen(found))


async def half_of_a(stage: Stage) -> float:
    if "a" not in stage.kept:
        await many_tenants(stage)
    rate: float = stage.kept["a"] / 2
    return rate


async def p99_of_orders(stage: Stage) -> Sample:
    rate = await half_of_a(stage)
    async with stage.api():
        found = await accepted(stage, rate=rate)
    return Sample(found["p99_ms"], seen(found))


async def p99_of_livez(stage: Stage) -> Sample:
    rate = await half_of_a(stage)
    async with stage.api():
        order = Order(stage.api_port, gets(("/livez", 1)), 204, seconds=stage.seconds, rate=rate)
        found = await stage.load_warm(order)
    return Sample(found["p99_ms"], seen(found))


FIGURES = (
    Figure(
        "a",
        "accepted, durable jobs/s, 64 connections, 1,000 tenants",
        "pgbench, the same inserts and balance update as one statement, 64 clients",
        many_tenants,
        postgres_itself,
        at_least=1.0,
    ),
    Figure("b", "the same with a single tenant, jobs/s", "figure a", single_tenant, many_tenants, at_least=0.9),
    Figure(
        "c",
        "accepted jobs/s",
        "the tutorial way: ORM session and httpx call to fal in each request",
        many_tenants,
        tutorial,
        at_least=25,
    ),
    Figure(
        "d",
        "p99 of accepting at half of a's rate, ms",
        "p99 of GET /livez at that rate",
        p99_of_orders,
        p99_of_livez,
        at_most=4,
    ),
)
