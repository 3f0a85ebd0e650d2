"""j: whether a long history slows anything down: each door with 10,000,000 jobs behind it, against 10,000."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from app import paging
from tests.bench import history
from tests.bench.figure import Figure, NotYet, Sample, Side
from tests.bench.figures.accept import accepted
from tests.bench.load import Order
from tests.bench.stage import Stage, gets, seen

SMALL: Final = 10_000
Door = Callable[[Stage], Awaitable[Sample]]


@asynccontextmanager
async def behind(stage: Stage, jobs: int) -> AsyncIterator[Stage]:
    """The stage, over a database with that many *jobs*, made when first asked for."""
    name, before = f"history_{jobs}", stage.url
    if not stage.kept.get(name):
        stage.sql(f"CREATE DATABASE {name}", stage.postgres.url)
        await asyncio.to_thread(history.make, stage.database(name), jobs)
        stage.kept[name] = True
    stage.url = stage.database(name)
    try:
        async with stage.api():
            yield stage
    finally:
        stage.url = before


async def taking_orders(stage: Stage) -> Sample:
    found = await accepted(stage, tenants=20)
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
        found = await stage.load(Order(stage.api_port, texts, 200, '"data"', seconds=stage.seconds, connections=8))
        return Sample(found["per_s"], seen(found))

    return read


async def overview(stage: Stage) -> Sample:
    await stage.has_path("/v1/overview")
    found = await stage.load(
        Order(stage.api_port, gets(("/v1/overview", history.LOOKED_AT)), 200, "{", seconds=stage.seconds, connections=8)
    )
    return Sample(found["per_s"], seen(found))


async def not_yet(stage: Stage) -> Sample:
    raise NotYet("the claim and the webhook intake aren't driven over a history yet")


def with_history(door: Door, jobs: int | None) -> Side:
    async def sample(stage: Stage) -> Sample:
        async with behind(stage, jobs or stage.kept["jobs"]):
            return await door(stage)

    return sample


DOORS: Final[dict[str, tuple[str, Door]]] = {
    "accept": ("orders/s", taking_orders),
    "page1": ("page 1 of the list/s", page(1)),
    "deep": ("pages of the list after 400 jobs/s", page(400)),
    "overview": ("overviews/s", overview),
    "rest": ("claims/s and webhooks/s", not_yet),
}
FIGURES = tuple(
    Figure(
        f"j-{key}",
        f"{what} behind a long history",
        f"the same behind {SMALL:,} jobs",
        with_history(door, None),
        with_history(door, SMALL),
        at_least=0.85,
    )
    for key, (what, door) in DOORS.items()
)
