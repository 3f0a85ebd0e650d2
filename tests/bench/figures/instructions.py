"""n: what an accepted job costs in instructions, which no neighbour on the machine can change."""

import asyncio
import os
import re
import shutil
import signal
import sys

from tests.bench.figure import Figure, Omitted, Sample, Wrong
from tests.bench.figures.accept import RIVALS, accepted
from tests.bench.load import Order
from tests.bench.stage import Stage, orders, seen
from tests.faults.stage import free_port


class Counter:
    """Counts instructions, user and kernel, of a running process and what it forks, while the block runs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.instructions = 0.0

    async def __aenter__(self) -> "Counter":
        if not shutil.which("perf"):
            raise Omitted("this machine has no perf")
        command = ("perf", "stat", "-x,", "-e", "instructions", "-p", str(self._pid))
        self._process = await asyncio.create_subprocess_exec(
            *command, stderr=asyncio.subprocess.PIPE, env={**os.environ, "LC_ALL": "C"}
        )
        await asyncio.sleep(0.3)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGINT)
        told = (await self._process.communicate())[1]
        found = re.search(rb"^(\d+),[^,]*,instructions", told, re.MULTILINE)
        if not found:
            raise Omitted(f"perf can't count here: {told.decode()[:100].strip()}")
        self.instructions = float(found[1])


async def of_an_order(stage: Stage) -> Sample:
    async with stage.api():
        await accepted(stage)
        async with Counter(stage.processes["serve"].pid) as counter:
            found = await accepted(stage)
    return Sample(counter.instructions / found["right"], seen(found))


async def of_a_route(stage: Stage) -> Sample:
    port = free_port()
    async with stage.serving("plain", sys.executable, "-m", f"{RIVALS}.plain", str(port), port=port, path="/livez"):
        order = Order(port, orders(1), 202, '"id"', seconds=stage.seconds)
        await stage.load(order)
        async with Counter(stage.processes["plain"].pid) as counter:
            found = await stage.load(order)
    if not found["right"]:
        raise Wrong("the plain route answered nothing")
    return Sample(counter.instructions / found["right"], seen(found))


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
