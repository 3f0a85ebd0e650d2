"""A small storm keeps every promise, and leaves nothing behind however it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.stage import ROOT

# Real processes, killed and started again: on a busy machine that takes a while.
pytestmark = pytest.mark.timeout(300)

ZEROS = ("lost", "paid_twice", "paid_without_job", "unresolved_holds", "cents_off", "unfinished_unexplained")


def storm(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.storm", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def below(pid: int) -> set[tuple[int, str]]:
    """Every process that *pid* started, and those started by them, each with the time of its start."""
    parents: dict[int, int] = {}
    since: dict[int, str] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if words[0] != "Z":
            parents[int(path.parent.name)], since[int(path.parent.name)] = int(words[1]), words[19]
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {(child, since[child]) for child in found - {pid}}


def wait_for(true: Callable[[], bool], within_s: float) -> bool:
    until = time.monotonic() + within_s
    while not true() and time.monotonic() < until:
        time.sleep(0.02)
    return true()


def test_a_small_storm_keeps_every_promise():
    process = storm("--jobs", "60", "--seed", "7", "--minutes", "0.15")

    told, _ = process.communicate(timeout=280)

    line = json.loads(told.strip().splitlines()[-1])
    assert {name: line[name] for name in ZEROS} == dict.fromkeys(ZEROS, 0), told
    assert process.returncode == 0
    assert line["jobs"] == 60
    assert line["postgres_kills"] > 0
    assert line["process_kills"] > 0
    assert told.splitlines()[0] == "make chaos SEED=7 JOBS=60 MINUTES=0.15"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_storm_that_is_stopped_leaves_no_process_behind(number):
    process = storm("--jobs", "1000", "--minutes", "5")
    # Postgres, the nursery, the simulator, two APIs, two workers.
    assert wait_for(lambda: len(below(process.pid)) > 12, within_s=60)
    started = below(process.pid)

    process.send_signal(number)
    process.communicate(timeout=60)

    now = lambda: {found for one in (1, os.getpid()) for found in below(one)}  # noqa: E731
    assert wait_for(lambda: not started & now(), within_s=20), started & now()
