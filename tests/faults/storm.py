"""
A storm: everything is killed and cut, again and again, under load; then it is still, and both sides are counted.

    make chaos JOBS=2000 SEED=1 MINUTES=5

The seed decides what befalls each submit and when which process dies; how that meets the load is up to the
machine. The last line is JSON: what was done, and six counts of broken promises. The exit code is 0 only if
all six are 0.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from sqlalchemy import text

from app.incidents.watcher import watch
from app.migrate import upgrade
from app.verify.verifier import verify
from tests.faults.promises import Findings, check
from tests.faults.stage import Nursery, Server, Stage, staged, until

APIS: Final = 2
WORKERS: Final = 2
AT_ONCE: Final = 24
REST_S: Final = 180.0
DATABASE: Final = "storm"
RATES: Final = {
    "lost_request": 0.03,
    "lost_answer": 0.06,
    "slow_answer": 0.04,
    "slow_answer_s": 1.5,
    "refused_5xx": 0.03,
    "answered_5xx": 0.04,
    "refused_429": 0.05,
    "failed": 0.04,
    "policy": 0.03,
    "stepped_back": 0.05,
    "webhook_lost": 0.08,
    "webhook_twice": 0.1,
    "webhook_late": 0.08,
    "webhook_late_s": 3.0,
    "webhook_early": 0.05,
    "webhook_forged": 0.08,
    "reads_5xx": 0.05,
}
# An incident gives the webhook, and fal's history, a quarter of an hour to tell.
OLD_ENOUGH: Final = text("""
    UPDATE attempts SET answered_at = answered_at - interval '1 hour'
    WHERE status = 'unknown' AND answered_at > now() - interval '30 minutes'
""")
TOLD_OF: Final = text("SELECT jobs FROM incidents WHERE kind = 'submit_unknown' AND closed_at IS NULL")


@dataclass
class Storm:
    """What is to be done, and what was."""

    seed: int
    jobs: int
    minutes: float
    postgres_kills: int = 0
    api_kills: int = 0
    worker_kills: int = 0
    cuts: int = 0
    found: Findings = field(default_factory=Findings)
    verified: bool = False

    @property
    def line(self) -> dict[str, Any]:
        """The last line."""
        told = {"seed": self.seed, "jobs": self.jobs}
        kills = {"postgres_kills": self.postgres_kills, "process_kills": self.api_kills + self.worker_kills}
        return {**told, **kills, **self.found.counts}

    async def rage(self, folder: Path) -> None:
        """Run it all."""
        with Nursery() as nursery, Server(folder / "postgres") as server:
            server.run(f"CREATE DATABASE {DATABASE}")
            await asyncio.to_thread(upgrade, server.url(DATABASE))
            inside = folder / "processes"
            inside.mkdir()
            async with staged(
                nursery,
                server,
                DATABASE,
                inside,
                apis=APIS,
                workers=WORKERS,
                tenants=3,
                simulator={"seed": self.seed, "run_s": 0.4, "queue_s": 0.2},
                settings={"FAL_TIMEOUT_S": "2", "LEASE_S": "5", "PROGRESS_S": "1"},
            ) as stage:
                await self._on(stage)

    async def _on(self, stage: Stage) -> None:
        for number in range(APIS):
            await stage.open_api(number=number)
        for worker in stage.workers:
            worker.start()
        await stage.faults_at_fal(RATES, self.seed)
        until_s = time.monotonic() + self.minutes * 60
        ordering = asyncio.create_task(self._order(stage))
        try:
            async with asyncio.TaskGroup() as group:
                for task in (self._kill_postgres, self._kill_processes, self._cut):
                    group.create_task(task(stage, until_s))
            await stage.faults_at_fal({})
            # A slow machine is still taking orders; for ever it may not.
            await asyncio.wait([ordering], timeout=self.minutes * 60 + REST_S)
            if ordering.done():
                ordering.result()
        finally:
            ordering.cancel()
            await asyncio.gather(ordering, return_exceptions=True)
        for child in (*stage.apis, *stage.workers):
            assert child.runs(), f"{child.command} ended by itself:\n{child.log.read_text()[-2000:]}"
        await self._rest(stage)

    async def _order(self, stage: Stage) -> None:
        """Every order, spread over all of the time, each sent again until it is answered."""
        pause_s = self.minutes * 60 / self.jobs
        places = asyncio.Semaphore(AT_ONCE)
        began = time.monotonic()

        async def order(number: int) -> None:
            async with places:
                await stage.order(f"order-{number}", "storm", key=number % len(stage.keys))

        async with asyncio.TaskGroup() as group:
            for number in range(self.jobs):
                await asyncio.sleep(max(0.0, began + number * pause_s - time.monotonic()))
                group.create_task(order(number))

    async def _kill_postgres(self, stage: Stage, until_s: float) -> None:
        dice = Random(f"postgres {self.seed}")
        while await _wait(dice.uniform(2, 6), until_s):
            stage.server.kill()
            self.postgres_kills += 1
            await asyncio.sleep(dice.uniform(0, 1.5))
            await stage.server.start()

    async def _kill_processes(self, stage: Stage, until_s: float) -> None:
        dice = Random(f"processes {self.seed}")
        # Workers twice as often: between two of a worker's commits there is a call that costs money.
        children = [*stage.apis, *stage.workers, *stage.workers]
        while await _wait(dice.uniform(0.5, 3), until_s):
            victim, away_s = dice.choice(children), dice.uniform(0, 1)
            assert victim.runs(), f"{victim.command} ended by itself:\n{victim.log.read_text()[-2000:]}"
            victim.kill()
            if victim in stage.workers:
                self.worker_kills += 1
            else:
                self.api_kills += 1
            await asyncio.sleep(away_s)
            victim.start()

    async def _cut(self, stage: Stage, until_s: float) -> None:
        dice = Random(f"cuts {self.seed}")
        while await _wait(dice.uniform(1, 4), until_s):
            self.cuts += dice.choice([stage.to_postgres, stage.to_fal]).reset()

    async def _rest(self, stage: Stage) -> None:
        """Wait until nothing moves any more, and count."""

        async def still() -> bool:
            books = await stage.books()
            self.found = await asyncio.to_thread(check, stage.url, books, stage.accepted, fal_tells=True)
            # An order that was never answered is nothing that was promised, but it isn't over either.
            self.found.unfinished_unexplained += self.jobs - len(stage.accepted)
            if self.found.unfinished_unexplained or not all(request["told"] for request in books):
                # Those that fal can still tell of must not be aged: its history is searched about their time.
                return False
            # What nobody can know is explained once an incident tells of it.
            self.found.unfinished_unexplained += self.found.jobs.get("submit_unknown", 0) - await _told_of(stage)
            return self.found.unfinished_unexplained == 0

        with suppress(AssertionError):
            await until(still, REST_S, pause_s=0.5)
        report = await verify(stage.db)
        self.found.notes += [
            f"verify: {finding.check.name}: {finding.count} {finding.examples[:3]}" for finding in report.findings
        ]
        self.verified = report.ok


async def _told_of(stage: Stage) -> int:
    """Lost submits in the open incident about them, once they are as old as that takes."""
    async with stage.db.session() as session:
        await session.execute(OLD_ENOUGH)
    await watch(stage.db)
    async with stage.db.session() as session:
        return await session.scalar(TOLD_OF) or 0


async def _wait(seconds: float, until_s: float) -> bool:
    """Sleep; False if that would be past the end of the storm."""
    if time.monotonic() + seconds > until_s:
        return False
    await asyncio.sleep(seconds)
    return True


async def run(storm: Storm) -> None:
    """Let *storm* rage in a folder of its own; SIGTERM ends it as Ctrl-C does."""
    main = asyncio.current_task()
    assert main is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main.cancel)
    with tempfile.TemporaryDirectory(prefix="callsheet-storm-", ignore_cleanup_errors=True) as folder:
        await storm.rage(Path(folder))


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="make chaos", description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=5.0)
    given = parser.parse_args(arguments)
    storm = Storm(seed=given.seed, jobs=given.jobs, minutes=given.minutes)
    print(f"make chaos SEED={given.seed} JOBS={given.jobs} MINUTES={given.minutes:g}", flush=True)
    try:
        asyncio.run(run(storm))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("stopped", file=sys.stderr)
        return 130
    for note in storm.found.notes[:50]:
        print(note)
    killed = f"{storm.postgres_kills} Postgres, {storm.api_kills} API, {storm.worker_kills} worker"
    print(f"killed: {killed}; {storm.cuts} connections cut; jobs: {storm.found.jobs}")
    print(f"callsheet verify: {'every promise holds' if storm.verified else 'a promise is broken'}")
    print(json.dumps(storm.line), flush=True)
    return 0 if storm.found.kept and storm.verified else 1


if __name__ == "__main__":
    sys.exit(main())
