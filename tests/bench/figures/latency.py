"""g: how soon fal has a job that was just accepted, on an idle system."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import httpx

from tests.bench.figure import Figure, Sample, Side, Wrong, percentile
from tests.bench.stage import ORDER_BODY, Stage, key_of

LOOK_S: Final = 0.03


def idle_s() -> float:
    """Long enough that what looks for more a little later has found nothing."""
    return random.uniform(0.06, 0.12)


async def from_202_to_fal(stage: Stage) -> list[float]:
    """Milliseconds, job by job; 0 if fal was quicker than the answer."""
    stage.put_off()
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
                await asyncio.sleep(idle_s())
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


async def round_trips(stage: Stage, pause_s: Callable[[], float] = idle_s) -> list[float]:
    """Milliseconds, one by one, each on a system that was idle before: from there everything takes longer."""
    found = []
    async with stage.fal() as port, httpx.AsyncClient(trust_env=False) as http:
        for _ in range(40 if stage.quick else 200):
            await asyncio.sleep(pause_s())
            since = time.perf_counter()
            json.loads((await http.get(f"http://127.0.0.1:{port}/jwks")).content)
            found.append((time.perf_counter() - since) * 1000)
    return found


def at(percent: float, measure: Callable[[Stage], Awaitable[list[float]]]) -> Side:
    async def sample(stage: Stage) -> Sample:
        found = await measure(stage)
        return Sample(percentile(found, percent), {"p50_ms": percentile(found, 50), "p99_ms": percentile(found, 99)})

    return sample


async def round_trip(stage: Stage) -> Sample:
    """The rival: idle as we are; beside it, in the facts, one right after the other."""
    found = await at(50, round_trips)(stage)
    hurried = await round_trips(stage, lambda: 0.0)
    return replace(found, facts={**found.facts, "one_after_the_other_p50_ms": percentile(hurried, 50)})


FIGURES = tuple(
    Figure(
        f"g-p{percent}",
        f"from 202 to fal having the submit, idle, p{percent}, ms",
        "a loopback round trip of httpx, as idle",
        at(percent, from_202_to_fal),
        round_trip,
        at_most=bound,
    )
    for percent, bound in ((50, 3), (99, 10))
)
