"""g: how soon fal has a job that was just accepted, on an idle system."""

import asyncio
import json
import random
import time
from typing import Final

import httpx

from tests.bench.figure import Figure, Sample, Side, Wrong, percentile
from tests.bench.stage import ORDER_BODY, Stage, key_of

LOOK_S: Final = 0.03


async def from_202_to_fal(stage: Stage) -> list[float]:
    """Milliseconds, job by job; 0 if fal was quicker than the answer."""
    stage.sql("UPDATE jobs SET due_at = now() + interval '1 day' WHERE status = 'queued'")
    headers = {"Authorization": f"Bearer {key_of(1)}", "Content-Type": "application/json"}
    found = []
    async with stage.fal() as fal_port, stage.api(fal_port), httpx.AsyncClient(trust_env=False) as http:
        # Nor is anything asked about the jobs that fal has.
        with stage.worker(fal_port, PROGRESS_S="600"):
            for number in range(60 if stage.quick else 200):
                answer = await http.post(
                    f"http://127.0.0.1:{stage.api_port}/v1/jobs", content=ORDER_BODY, headers=headers
                )
                accepted_at = time.monotonic()
                answer.raise_for_status()
                had_at = await _had_by_fal(http, fal_port, number)
                if number:  # the first waits for the worker to start
                    found.append(max(0.0, had_at - accepted_at) * 1000)
                # Idle again: what looks for more a little later has found nothing.
                await asyncio.sleep(random.uniform(0.06, 0.12))
    return found


async def _had_by_fal(http: httpx.AsyncClient, port: int, number: int, within_s: float = 60) -> float:
    """When fal had submit *number* (monotonic)."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        # Whoever asks meanwhile takes the processor from what is measured.
        await asyncio.sleep(LOOK_S)
        if found := (await http.get(f"http://127.0.0.1:{port}/taken", params={"since": number})).json():
            had_at: float = found[0][2]
            return had_at
    raise Wrong(f"fal hadn't submit {number} after {within_s:g} s")


async def round_trips(stage: Stage) -> list[float]:
    found = []
    async with stage.fal() as port, httpx.AsyncClient(trust_env=False) as http:
        for _ in range(200):
            since = time.perf_counter()
            json.loads((await http.get(f"http://127.0.0.1:{port}/jwks")).content)
            found.append((time.perf_counter() - since) * 1000)
    return found


def at(percent: float, measure: object) -> Side:
    async def sample(stage: Stage) -> Sample:
        found = await measure(stage)  # type: ignore[operator]
        return Sample(percentile(found, percent), {"p50_ms": percentile(found, 50), "p99_ms": percentile(found, 99)})

    return sample


FIGURES = tuple(
    Figure(
        f"g-p{percent}",
        f"from 202 to fal having the submit, idle, p{percent}, ms",
        "a loopback round trip of httpx",
        at(percent, from_202_to_fal),
        at(50, round_trips),
        at_most=bound,
    )
    for percent, bound in ((50, 3), (99, 10))
)
