"""`make bench`: measure every figure, print the table, write report.json and report.md. QUICK=1 ends in two minutes."""

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from app.postgres import EmbeddedPostgres
from tests.bench import indexes, profile, report
from tests.bench.figure import Figure, NotYet, entry, measured
from tests.bench.figures import (
    accept,
    client,
    history,
    instructions,
    latency,
    life,
    reading,
    starting,
    streams,
    webhooks,
)
from tests.bench.machine import facts
from tests.bench.stage import Stage

HERE: Final = Path(__file__).parent
# The order they are measured in: what needs an idle system first, what others lean on, what takes long last.
MODULES: Final = (latency, life, accept, webhooks, reading, client, instructions, streams, starting, history)
FIGURES: Final[tuple[Figure, ...]] = tuple(figure for module in MODULES for figure in module.FIGURES)
POSTGRES: Final = {"shared_buffers": "512MB", "max_wal_size": "4GB", "checkpoint_timeout": "15min"}
QUICK_S: Final = 105.0
LONGEST_S: Final = 7200.0


@contextmanager
def set_up(*, quick: bool, rounds: int) -> Iterator[Stage]:
    """A stage in a folder of its own, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="callsheet-bench-"))
    try:
        with EmbeddedPostgres(folder / "postgres", settings=POSTGRES) as postgres:
            stage = Stage(folder, postgres, seconds=1.0 if quick else 5.0, rounds=rounds, quick=quick)
            try:
                stage.make_databases()
                yield stage
            finally:
                stage.stop(*list(stage.processes))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def measure(stage: Stage, wanted: list[Figure], until: float) -> dict[str, Any]:
    """The entry of every figure of *wanted*; those whose turn comes after *until* are left out."""
    found = {}
    for figure in wanted:
        left_s = until - time.monotonic()
        if left_s <= 0:
            found[figure.key] = entry(figure, [], "left out", "time is up")
            continue
        try:
            async with asyncio.timeout(left_s):
                found[figure.key] = await measured(figure, stage, stage.rounds)
        except TimeoutError:
            found[figure.key] = entry(figure, [], "left out", "time was up in the middle of it")
        if found[figure.key]["met"] is False and time.monotonic() < until:
            found[figure.key]["profile"] = await profile.taken(
                stage, figure.ours, starting=figure.key == starting.STARTS
            )
        print(report.table({"figures": {figure.key: found[figure.key]}, "machine": {}}).splitlines()[2], flush=True)
    return found


async def weigh(stage: Stage, until: float) -> list[dict[str, Any]]:
    """What each index takes, if there is a history to tell from, and time."""
    try:
        async with asyncio.timeout(until - time.monotonic()):
            return await indexes.taken(stage)
    except NotYet:
        return []
    except Exception as error:  # noqa: BLE001 - the figures are still worth reporting
        print(f"What each index takes wasn't measured: {type(error).__name__}: {error}", flush=True)
        return []


def main() -> int:
    """Measure; 0 unless an answer or a count was wrong."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, help="size of the large history, figure j")
    parser.add_argument("figures", nargs="*", help="keys, such as a e; default: all")
    given = parser.parse_args()
    # So that what was started is stopped then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    wanted = [figure for figure in FIGURES if not given.figures or figure.key.partition("-")[0] in given.figures]
    until = time.monotonic() + (QUICK_S if given.quick else LONGEST_S)
    with set_up(quick=given.quick, rounds=given.rounds) as stage:
        stage.kept["jobs"] = given.jobs or (200_000 if given.quick else 10_000_000)
        machine = facts(stage.url.replace("+psycopg", ""))
        found = asyncio.run(measure(stage, wanted, until))
        weighed = asyncio.run(weigh(stage, until))
    print("\n" + report.write(HERE, {"figures": found, "indexes": weighed, "machine": machine}))
    return int(any(one["state"] == "wrong" for one in found.values()))


if __name__ == "__main__":
    sys.exit(main())
