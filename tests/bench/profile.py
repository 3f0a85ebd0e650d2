"""Why a figure is missed: what our own processes do with their time, as py-spy sees it while it is driven once more."""

import asyncio
import re
import subprocess
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tests.bench.stage import Stage

PROGRAM: Final = Path(sysconfig.get_path("scripts"), "py-spy")
OURS: Final = ("serve", "work", "up")
SECONDS: Final = 3.0
PER_S: Final = 100
IMPORTING: Final = "importing"
MOST: Final = 8
"""Packages named of each process, those that take most."""
# A thread that waits, caught on its way in or out.
WAITING: Final = ("threading.py", "selectors.py", "concurrent/futures/thread.py", "app/postgres/process.py")
# What a process does before it has a loop, or threads, is its start.
STARTED: Final = ("(asyncio/runners.py", "(threading.py")
# Such as `run (asyncio/runners.py:118)`.
FILE: Final = re.compile(r"\((.*?):?\d*\)$")

Profile = dict[str, Any]
"""By process: shares of its time in percent, by package; or text that says why there are none."""


async def taken(stage: Stage, drive: Callable[[Stage], Awaitable[object]], *, starting: bool = False) -> Profile:
    """The profile of what *drive* makes our processes do for some seconds; of their start only if *starting*."""
    if not PROGRAM.exists():
        return {"py-spy": "isn't installed"}
    short = replace(stage, seconds=SECONDS, quick=True)
    found: Profile = {}
    watching: dict[str, asyncio.Task[None]] = {}

    async def watch() -> None:
        while True:
            for name, process in short.processes.items():
                if name in OURS and name not in watching:
                    watching[name] = asyncio.create_task(_watch(name, process, found, starting))
            await asyncio.sleep(0.1)

    looking = asyncio.create_task(watch())
    try:
        await drive(short)
    except Exception as error:  # noqa: BLE001 - the figure has its numbers already
        found["driving"] = f"{type(error).__name__}: {error}"[:200]
    looking.cancel()
    await asyncio.gather(looking, *watching.values(), return_exceptions=True)
    return found


async def _watch(name: str, process: "subprocess.Popen[bytes]", found: Profile, starting: bool) -> None:
    """Note what *process* does until it ends."""
    with tempfile.NamedTemporaryFile("r", suffix=".txt") as file:
        while True:
            spy = await asyncio.create_subprocess_exec(
                *(str(PROGRAM), "record", "--pid", str(process.pid), "--rate", str(PER_S)),
                *("--format", "raw", "--output", file.name),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            try:
                _, told = await spy.communicate()
            finally:
                if spy.returncode is None:
                    spy.kill()
            if spy.returncode == 0:
                found[name] = shares(file.read(), starting=starting)
                return
            found[name] = f"py-spy can't attach: {told.decode().strip()[-200:]}"
            if process.poll() is not None:
                return
            # A process that has only just begun isn't a Python yet.
            await asyncio.sleep(0.2)


def shares(raw: str, *, starting: bool = False) -> dict[str, float]:
    """Percent of the samples of py-spy's *raw* by the package they were taken in; the greatest first."""
    counts: Counter[str] = Counter()
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        if _is_waiting(stack):
            continue
        package = IMPORTING if "(<frozen importlib" in stack else _package(stack)
        if starting or (package != IMPORTING and any(frame in stack for frame in STARTED)):
            counts[package] += int(count)
    return {package: round(count / counts.total() * 100, 1) for package, count in counts.most_common(MOST)}


def _is_waiting(stack: str) -> bool:
    at = FILE.search(stack.rpartition(";")[2])
    return at is not None and at[1].startswith(WAITING)


def _package(stack: str) -> str:
    at = FILE.search(stack.rpartition(";")[2])
    parts = at[1].split("/") if at else ["?"]
    return "/".join(parts[:2]) if parts[0] == "app" else parts[0]
