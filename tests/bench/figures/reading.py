"""i: looking at one job."""

from tests.bench import pgbench
from tests.bench.figure import Figure, Sample
from tests.bench.figures.accept import accepted
from tests.bench.load import Order
from tests.bench.stage import MADE_JOBS, Stage, gets, seen


async def look_at_jobs(stage: Stage) -> Sample:
    async with stage.api():
        if "ids" not in stage.kept:
            await accepted(stage)
        ids = ", ".join(f"'{job_id}'" for job_id in stage.kept["ids"])
        # A tenant's id is its number.
        found = stage.sql(
            f"SELECT id, CAST(replace(CAST(tenant_id AS text), '-', '') AS bigint) FROM jobs WHERE id IN ({ids})"
        )
        paths = gets(*((f"/v1/jobs/{job_id}", tenant) for job_id, tenant in found))
        seen_now = await stage.load_warm(Order(stage.api_port, paths, 200, '"status"', seconds=stage.seconds))
    return Sample(seen_now["per_s"], seen(seen_now))


async def postgres_itself(stage: Stage) -> Sample:
    return Sample(await pgbench.rate(stage.yardstick, pgbench.LOOK, seconds=stage.seconds, jobs=MADE_JOBS))


FIGURES = (
    Figure(
        "i",
        "GET /v1/jobs/{id}, answers/s, 64 connections",
        "pgbench, select by key, 64 clients",
        look_at_jobs,
        postgres_itself,
        at_least=0.2,
    ),
)
