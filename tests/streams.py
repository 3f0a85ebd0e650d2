"""
Many event streams on one process: what each costs. `python -m tests.streams 5000`, with `ulimit -n` above that.

A real `callsheet serve`, a Postgres of its own, one connection and one job for each stream, and some streams of all
jobs. While jobs finish, the process is killed, and everybody goes on at another one with their Last-Event-ID. Prints
JSON: memory for each stream, how long it took until every stream had heard of its own job's next event, and
`lost_or_twice`, the streams that didn't hear exactly what they should, in order; it exits with 1 if there are any.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from sqlalchemy import text

from app.db import Database
from app.migrate import upgrade
from app.postgres import EmbeddedPostgres
from app.wakeup import NEWS, Announcer
from tests import factories as make

JOBS: Final = text("""
    INSERT INTO jobs (tenant_id, id, model, input, order_digest, status, event_count, seconds, price_per_second, quoted)
    SELECT :tenant, gen_random_uuid(), 'model', '{}', sha256('x'), 'queued', 1, 5, 0.42, 2.10
    FROM generate_series(1, :count)
    RETURNING id
""")
FIRST: Final = text("""
    INSERT INTO job_events (tenant_id, job_id, number, status, why) SELECT tenant_id, id, 1, 'queued', 'x' FROM jobs
""")
NEXT: Final = text("""
    WITH moved AS (
        UPDATE jobs SET event_count = event_count + 1 WHERE id = ANY(:jobs) RETURNING tenant_id, id, event_count
    )
    INSERT INTO job_events (tenant_id, job_id, number, status, why)
    SELECT tenant_id, id, event_count, :status, 'y' FROM moved
""")
FINISHING: Final = 200
LISTS: Final = 10
HEARD_S: Final = 120.0


@dataclass
class Stream:
    """One who follows *path*, and notes each event heard: whose it was, and its number."""

    path: str
    heard: list[tuple[str, int]] = field(default_factory=list)
    last: str | None = None
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None

    async def open(self, port: int, key: str) -> None:
        """Begin, or go on where it was."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
        headers = ["Host: x", f"Authorization: Bearer {key}"]
        if self.last is not None:
            headers.append(f"Last-Event-ID: {self.last}")
        self.writer.write("\r\n".join([f"GET {self.path} HTTP/1.1", *headers, "", ""]).encode())
        await self.reader.readuntil(b": hello\n")

    async def hear(self, count: int) -> None:
        """Listen until *count* events were heard in all, or the stream is over."""
        assert self.reader is not None
        event = ""
        # A killed process says nothing more; nor does one that is over.
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while len(self.heard) < count:
                name, _, value = (await self.reader.readuntil(b"\n")).decode().strip().partition(": ")
                if name == "event":
                    event = value
                elif name == "id":
                    self.last = value
                elif name == "data" and event == "status":
                    told = json.loads(value)
                    self.heard.append((told["job_id"], told["number"]))

    async def rest(self) -> None:
        """Listen to the end, and hang up."""
        await self.hear(sys.maxsize)
        assert self.writer is not None
        self.writer.close()


@dataclass
class Served:
    """A `callsheet serve` of its own."""

    process: "subprocess.Popen[bytes]"
    port: int

    def memory_kb(self) -> int:
        """What the process has in memory."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


async def serve(url: str, streams: int) -> Served:
    """One that is ready, for so many streams of one key."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "DATABASE_URL": url, "PORT": str(port), "STREAMS_PER_KEY": str(streams)}
    command = [sys.executable, "-m", "app.cli", "serve"]
    process = await asyncio.to_thread(subprocess.Popen, command, env=environment, stderr=subprocess.DEVNULL)
    async with httpx.AsyncClient(trust_env=False) as client:
        while True:
            try:
                await client.get(f"http://127.0.0.1:{port}/readyz")
                return Served(process, port)
            except httpx.ConnectError:
                await asyncio.sleep(0.1)


async def open_all(streams: Sequence[Stream], port: int, key: str) -> None:
    """Open *streams*, some at a time."""
    for start in range(0, len(streams), 50):
        await asyncio.gather(*(stream.open(port, key) for stream in streams[start : start + 50]))


async def heard_by(streams: Iterable[Stream], count: int) -> None:
    """Wait until each of *streams* has heard *count* events, or fails to."""
    with suppress(TimeoutError):
        async with asyncio.timeout(HEARD_S):
            await asyncio.gather(*(stream.hear(count) for stream in streams))


def astray(streams: Sequence[Stream], lists: Sequence[Stream], ids: Sequence[str]) -> int:
    """How many streams heard anything but what they should have, each event once and a job's in order."""
    finished = set(ids[:FINISHING])
    wrong = 0
    for stream, job in zip(streams, ids, strict=True):
        wrong += stream.heard != [(job, number) for number in range(1, 6 if job in finished else 3)]
    for stream in lists:
        of_each: dict[str, list[int]] = {}
        for job, number in stream.heard:
            of_each.setdefault(job, []).append(number)
        wrong += of_each != {job: [3, 4, 5] for job in finished}
    return wrong


async def measure(url: str, count: int) -> dict[str, Any]:
    """The figures for *count* streams."""
    db = Database(url)
    caller, key = await make.make_key(db)
    async with db.session() as session:
        jobs = list((await session.execute(JOBS, {"tenant": caller.tenant_id, "count": count})).scalars())
        await session.execute(FIRST)
    ids = [str(job) for job in jobs]
    streams = [Stream(f"/v1/jobs/{job}/events") for job in ids]
    lists = [Stream("/v1/events") for _ in range(min(LISTS, count))]
    one = await serve(url, count + 20)
    other: Served | None = None

    async def move(some: Sequence[Any], status: str) -> None:
        async with db.session() as session:
            await session.execute(NEXT, {"jobs": list(some), "status": status})
        news.announce()

    try:
        async with Announcer(db.url, NEWS) as news:
            await open_all(streams[:20], one.port, key)
            before, since = one.memory_kb(), time.monotonic()
            await open_all(streams[20:], one.port, key)
            await heard_by(streams, 1)
            opening_s, after = time.monotonic() - since, one.memory_kb()
            since = time.monotonic()
            await move(jobs, "queued")
            await heard_by(streams, 2)
            heard_s, with_news = time.monotonic() - since, one.memory_kb()
            await open_all(lists, one.port, key)

            # Killed while 200 jobs move: some have heard of it, some haven't.
            await move(jobs[:FINISHING], "submitted")
            await streams[0].hear(3)
            one.process.send_signal(signal.SIGKILL)
            await asyncio.gather(*(stream.rest() for stream in [*streams, *lists]))
            since, other = time.monotonic(), await serve(url, count + 20)
            await open_all([*streams, *lists], other.port, key)
            reopening_s = time.monotonic() - since
            for status in ("in_progress", "succeeded"):
                await move(jobs[:FINISHING], status)
            await heard_by(streams[:FINISHING], 5)
            await heard_by(lists, 3 * len(jobs[:FINISHING]))
        since = time.monotonic()
        other.process.terminate()
        # Whatever more they would hear by then, they should not have.
        await asyncio.gather(*(stream.rest() for stream in [*streams, *lists]))
        await asyncio.to_thread(other.process.wait, 20)
        return {
            "streams": count,
            "kb_per_stream": round((after - before) / max(count - 20, 1), 1),
            "kb_per_stream_with_news": round((with_news - before) / max(count - 20, 1), 1),
            "opening_s": round(opening_s, 2),
            "all_heard_after_s": round(heard_s, 3),
            "reopened_elsewhere_after_s": round(reopening_s, 2),
            "lost_or_twice": astray(streams, lists, ids),
            "stopped_after_s": round(time.monotonic() - since, 2),
            "exit_code": other.process.returncode,
        }
    finally:
        one.process.kill()
        if other is not None:
            other.process.kill()
        await db.close()


def main() -> None:
    """Measure as many as the command line says."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder) / "data") as postgres:
        upgrade(postgres.url)
        found = asyncio.run(measure(postgres.url, count))
    print(json.dumps(found))
    sys.exit(1 if found["lost_or_twice"] else 0)


if __name__ == "__main__":
    main()
