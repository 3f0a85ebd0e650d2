"""j: whether a long history slows anything down: each door with 10,000,000 jobs behind it, against 10,000."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from app import paging
from tests.bench import history
from tests.bench.figure import Figure, NotYet, Omitted, Sample, Side
from tests.bench.figures.accept import accepted
from tests.bench.figures.webhooks import lived
from tests.bench.load import Order
from tests.bench.stage import Stage, gets, seen
from tests.history import TENANTS

SMALL: Final = 10_000
WARM: Final = 2
"""
How often the lives of a round are lived before anything is measured: of what was just loaded nothing is in memory, and
its indexes are packed as none are that grew, so that what is written first splits a page of each.
"""
Door = Callable[[Stage], Awaitable[Sample]]


@asynccontextmanager
async def behind(stage: Stage, jobs: int) -> AsyncIterator[Stage]:
    """The stage, over a database with that many *jobs*, made when first asked for."""
    name, before = f"history_{jobs}", stage.url
    if not stage.kept.get(name):
        stage.sql(f"CREATE DATABASE {name}", stage.postgres.url)
        await asyncio.to_thread(history.make, stage.database(name), jobs)
        stage.kept[name] = "made"
    stage.url = stage.database(name)
    try:
        if stage.kept[name] == "made":
            for _ in range(WARM):
                await lived(stage, tenants=TENANTS)
            stage.kept[name] = "warm"
        yield stage
    finally:
        stage.url = before


async def taking_orders(stage: Stage) -> Sample:
    async with stage.api():
        found = await accepted(stage, tenants=TENANTS)
    return Sample(found["per_s"], seen(found))


def page(number: int) -> Door:
    """Pages a second of the tenant's list, as it goes on after its first *number* jobs, or from its start for 1."""

    async def read(stage: Stage) -> Sample:
        tenant = "SELECT tenant_id FROM jobs GROUP BY tenant_id ORDER BY count(*) DESC LIMIT 1"
        rows = stage.sql(
            f"SELECT id FROM jobs WHERE tenant_id = ({tenant}) ORDER BY id DESC OFFSET {number - 1} LIMIT 1"
        )
        if not rows:
            raise NotYet(f"no tenant has {number} jobs")
        cursor = f"&cursor={paging.encode(rows[0][0])}" if number > 1 else ""
        texts = gets((f"/v1/jobs?limit=20{cursor}", history.LOOKED_AT))
        async with stage.api():
            order = Order(stage.api_port, texts, 200, '"data"', seconds=stage.seconds, connections=8)
            found = await stage.load(order)
        return Sample(found["per_s"], seen(found))

    return read


async def overview(stage: Stage) -> Sample:
    texts = gets(("/v1/overview", history.LOOKED_AT))
    async with stage.api():
        await stage.has_path("/v1/overview")
        found = await stage.load(Order(stage.api_port, texts, 200, "{", seconds=stage.seconds, connections=8))
    return Sample(found["per_s"], seen(found))


async def submits(stage: Stage) -> Sample:
    per_s, _ = await lived(stage, tenants=TENANTS)
    return Sample(per_s)


async def reports(stage: Stage) -> Sample:
    _, found = await lived(stage, tenants=TENANTS)
    return Sample(found["per_s"], seen(found))


def with_short(door: Door) -> Side:
    async def sample(stage: Stage) -> Sample:
        async with behind(stage, SMALL):
            return await door(stage)

    return sample


def with_long(door: Door) -> Side:
    async def sample(stage: Stage) -> Sample:
        wanted: int = stage.kept["jobs"]
        # Whole thousands, decided once: what was made takes of the room.
        jobs = stage.kept.setdefault("long", min(wanted, history.room(stage.folder) // 1000 * 1000))
        if jobs <= SMALL:
            raise Omitted("the disk has no room for a long history")
        async with behind(stage, jobs):
            found = await door(stage)
        instead = f"behind {jobs:,}, for the disk has no room for {wanted:,}" if jobs < wanted else ""
        return replace(found, instead=instead, facts={**found.facts, "jobs": jobs})

    return sample


DOORS: Final[dict[str, tuple[str, Door]]] = {
    "accept": ("orders/s", taking_orders),
    "page1": ("page 1 of the list/s", page(1)),
    "deep": ("pages of the list after 400 jobs/s", page(400)),
    "overview": ("overviews/s", overview),
    "claim": ("submits/s", submits),
    "webhook": ("webhooks/s", reports),
}
FIGURES = tuple(
    Figure(
        f"j-{key}",
        f"{what} behind a long history",
        f"the same behind {SMALL:,} jobs",
        with_long(door),
        with_short(door),
        at_least=0.85,
    )
    for key, (what, door) in DOORS.items()
)
