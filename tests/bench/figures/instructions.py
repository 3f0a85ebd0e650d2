"""n: what an accepted job costs in instructions, which no neighbour on the machine can change."""

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

from tests.bench.figure import Figure, Sample, Wrong
from tests.bench.figures.accept import RIVALS, accepted
from tests.bench.load import Order
from tests.bench.machine import cpu_s
from tests.bench.stage import Stage, orders, seen
from tests.ports import free_port

INSTEAD: Final = "processor microseconds, for instructions can't be counted here"


async def per_answer(pid: int, load: Callable[[], Awaitable[dict[str, Any]]]) -> Sample:
    """What process *pid* and those it forks spend on each right answer to *load*, user and kernel."""
    counting = await _counting(pid)
    used_s = cpu_s([pid])
    found = await load()
    used_s = cpu_s([pid]) - used_s
    if not found["right"]:
        raise Wrong("nothing was answered")
    instructions = await _counted(counting) if counting else None
    if instructions is None:
        return Sample(used_s * 1e6 / found["right"], seen(found), INSTEAD)
    return Sample(instructions / found["right"], {**seen(found), "cpu_us": used_s * 1e6 / found["right"]})


async def _counting(pid: int) -> asyncio.subprocess.Process | None:
    if not shutil.which("perf"):
        return None
    command = ("perf", "stat", "-x,", "-e", "instructions", "-p", str(pid))
    counting = await asyncio.create_subprocess_exec(
        *command, stderr=asyncio.subprocess.PIPE, env={**os.environ, "LC_ALL": "C"}
    )
    await asyncio.sleep(0.3)
    return counting


async def _counted(counting: asyncio.subprocess.Process) -> float | None:
    """None where perf has no counter to ask, as on many virtual machines."""
    if counting.returncode is None:
        counting.send_signal(signal.SIGINT)
    told = (await counting.communicate())[1]
    found = re.search(rb"^(\d+),[^,]*,instructions", told, re.MULTILINE)
    return float(found[1]) if found else None


async def of_an_order(stage: Stage) -> Sample:
    async with stage.api():
        await accepted(stage)
        order = Order(stage.api_port, orders(), 202, '"queued"', seconds=stage.seconds)
        return await per_answer(stage.processes["serve"].pid, lambda: stage.load(order))


async def of_a_route(stage: Stage) -> Sample:
    port = free_port()
    async with stage.serving("plain", sys.executable, "-m", f"{RIVALS}.plain", str(port), port=port, path="/livez"):
        order = Order(port, orders(1), 202, '"id"', seconds=stage.seconds)
        await stage.load(order)
        return await per_answer(stage.processes["plain"].pid, lambda: stage.load(order))


FIGURES = (
    Figure(
        "n",
        "instructions in Python per accepted job",
        "a default FastAPI route without a database",
        of_an_order,
        of_a_route,
        at_most=0.5,
    ),
)
