"""l: how soon `callsheet up`, `serve` and the command line are there, and what an idle system costs."""

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx

from tests.bench.figure import Figure, Sample, Wrong
from tests.bench.machine import cpu_s
from tests.bench.stage import ORDER_BODY, Stage, callsheet
from tests.ports import free_port

STARTS: Final = "l-start"


@asynccontextmanager
async def up(stage: Stage) -> AsyncIterator[float]:
    """`callsheet up`, and the seconds until its first 202."""
    data = stage.folder / "up"
    port, simulator_port = free_port(), free_port()
    since = time.perf_counter()
    stage.start(
        "up", *callsheet("up", "--data", str(data), "--port", str(port), "--simulator-port", str(simulator_port))
    )
    try:
        async with httpx.AsyncClient(trust_env=False) as http:
            await _first_order(stage, http, data, port, since + 60)
        yield time.perf_counter() - since
    finally:
        stage.stop("up")


async def _first_order(stage: Stage, http: httpx.AsyncClient, data: Path, port: int, until: float) -> None:
    while time.perf_counter() < until and stage.processes["up"].poll() is None:
        try:
            key = json.loads((data / "up.json").read_text())["api_key"]
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            answer = await http.post(f"http://127.0.0.1:{port}/v1/jobs", content=ORDER_BODY, headers=headers)
        except (OSError, ValueError, httpx.HTTPError):
            await asyncio.sleep(0.01)
            continue
        if answer.status_code == 202:
            return
        raise Wrong(f"the first order was answered {answer.status_code}")
    raise Wrong(f"up doesn't come up: {(stage.folder / 'up.log').read_text()[-300:]}")


async def first_202(stage: Stage) -> Sample:
    if not (stage.folder / "up").exists():
        async with up(stage):
            pass
    async with up(stage) as took_s:
        return Sample(took_s)


async def first_202_ever(stage: Stage) -> Sample:
    shutil.rmtree(stage.folder / "up", ignore_errors=True)
    async with up(stage) as took_s:
        return Sample(took_s)


async def serve_answers(stage: Stage) -> Sample:
    since = time.perf_counter()
    async with stage.api():
        return Sample(time.perf_counter() - since)


async def command_ends(_: Stage) -> Sample:
    since = time.perf_counter()
    process = await asyncio.create_subprocess_exec(*callsheet("jobs", "--help"), stdout=asyncio.subprocess.DEVNULL)
    if await process.wait():
        raise Wrong("the command failed")
    return Sample(time.perf_counter() - since)


async def idle(stage: Stage) -> Sample:
    async with up(stage):
        # The video of the first order is made and kept meanwhile.
        await asyncio.sleep(8)
        used_s, since = cpu_s([stage.processes["up"].pid]), time.perf_counter()
        await asyncio.sleep(3 if stage.quick else 20)
        took_s = time.perf_counter() - since
        return Sample((cpu_s([stage.processes["up"].pid]) - used_s) / took_s * 100)


FIGURES = (
    Figure("l-cold", "`callsheet up` in an empty folder to its first 202, s", "nothing", first_202_ever, at_most=10),
    Figure(STARTS, "warm `callsheet up` to its first 202, s", "nothing", first_202, at_most=3),
    Figure("l-serve", "`callsheet serve` to its first answer, s", "nothing", serve_answers, at_most=3),
    Figure("l-command", "`callsheet jobs --help`, s", "nothing", command_ends, at_most=1),
    Figure("l-idle", "processor of the whole idle system, % of a core", "nothing", idle, at_most=1),
)
