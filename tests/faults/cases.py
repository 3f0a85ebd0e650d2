"""A case of the matrix: a point on a job's way at which something goes wrong, and what becomes of the job."""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.faults.stage import Child, Stage

LOST: Final = "[[sim: lost_answer]]"
UNHEARD: Final = "[[sim: webhook=never]]"
REFUSED_ONCE: Final = "[[sim: refuse=429, times=1]]"
PAID: Final = ("succeeded", 1)
UNKNOWN: Final = ("submit_unknown", 0)
"""Nobody can know whether fal has it, so it is not sent again; in truth fal hasn't."""


@dataclass(frozen=True)
class Case:
    """A point on a job's way, in which process, and what becomes of the job."""

    process: str
    point: str
    prompt: str = ""
    ends: tuple[str, int] = PAID
    quick: bool = False

    def __str__(self) -> str:
        return self.point


def cases(*found: Case) -> list[Any]:
    """Parameters; those that aren't quick run with `make chaos` only."""
    return [pytest.param(case, id=str(case), marks=() if case.quick else pytest.mark.slow) for case in found]


def also_slow(*values: Any, quick: tuple[Any, ...] = ()) -> list[Any]:
    return [pytest.param(value, marks=() if value in quick else pytest.mark.slow) for value in values]


async def begin(stage: Stage, case: Case, points: dict[str, str]) -> "asyncio.Task[str | None]":
    """Start both processes, the one of *case* with *points*, and order a video for as long as it takes."""
    api, worker = ((points, {}), ({}, points))[case.process == "worker"]
    stage.worker.start(worker)
    await stage.open_api(api)
    return asyncio.create_task(stage.order("order-1", case.prompt))


def of(stage: Stage, case: Case) -> Child:
    return stage.api if case.process == "api" else stage.worker


async def assert_ends(stage: Stage, ordered: "asyncio.Task[str | None]", ends: tuple[str, int]) -> None:
    """At rest every promise is kept, and the job has come to its end."""
    async with asyncio.timeout(60):
        job_id = await ordered
    await stage.rest()
    assert job_id is not None
    assert (await stage.see(job_id))[0] == ends[0], stage.worker.log.read_text()[-3000:]
    assert len(await stage.books()) == ends[1]
    copies = await stage.copies()
    assert {path: path.stat().st_size for path in copies} == copies
    assert len(copies) == (ends[0] == "succeeded")
