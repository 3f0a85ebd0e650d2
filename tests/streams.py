"""
Many event streams on one process: what each costs. `python -m tests.streams 5000`, with `ulimit -n` above that.

A real `callsheet serve`, a Postgres of its own, one connection and one job for each stream. Prints JSON: memory for
each stream, and how long it took until every stream had heard of its own job's next event.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing
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
    WITH moved AS (UPDATE jobs SET event_count = 2 RETURNING tenant_id, id)
    INSERT INTO job_events (tenant_id, job_id, number, status, why) SELECT tenant_id, id, 2, 'queued', 'y' FROM moved
""")


def memory_kb(pid: int) -> int:
    """What the process has in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


async def opened(port: int, key: str, job_id: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream that has brought its first event."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
    writer.write(f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
    await reader.readuntil(b"id: 1\n")
    return reader, writer


async def measure(url: str, count: int) -> dict[str, Any]:
    """The figures for *count* streams."""
    db = Database(url)
    caller, key = await make.make_key(db)
    async with db.session() as session:
        jobs = list((await session.execute(JOBS, {"tenant": caller.tenant_id, "count": count})).scalars())
        await session.execute(FIRST)
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "DATABASE_URL": url, "PORT": str(port), "STREAMS_PER_KEY": str(count + 10)}
    command = [sys.executable, "-m", "app.cli", "serve"]
    process = await asyncio.to_thread(subprocess.Popen, command, env=environment, stderr=subprocess.DEVNULL)
    try:
        async with httpx.AsyncClient(trust_env=False) as client:
            while True:
                try:
                    await client.get(f"http://127.0.0.1:{port}/readyz")
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0.1)
        warm = [await opened(port, key, job) for job in jobs[:20]]
        before, since, streams = memory_kb(process.pid), time.monotonic(), list(warm)
        for start in range(20, count, 50):
            streams += await asyncio.gather(*(opened(port, key, job) for job in jobs[start : start + 50]))
        opening_s, after = time.monotonic() - since, memory_kb(process.pid)
        async with Announcer(db.url, NEWS) as news:
            async with db.session() as session:
                await session.execute(NEXT)
            since = time.monotonic()
            news.announce()
            await asyncio.gather(*(reader.readuntil(b"id: 2\n") for reader, _ in streams))
            heard_s = time.monotonic() - since
        with_news = memory_kb(process.pid)
        since = time.monotonic()
        process.terminate()
        await asyncio.gather(*(reader.read() for reader, _ in streams))
        await asyncio.to_thread(process.wait, 20)
        return {
            "streams": count,
            "kb_per_stream": round((after - before) / max(count - 20, 1), 1),
            "kb_per_stream_with_news": round((with_news - before) / max(count - 20, 1), 1),
            "opening_s": round(opening_s, 2),
            "all_heard_after_s": round(heard_s, 3),
            "stopped_after_s": round(time.monotonic() - since, 2),
            "exit_code": process.returncode,
        }
    finally:
        process.kill()
        await db.close()


def main() -> None:
    """Measure as many as the command line says."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder) / "data") as postgres:
        upgrade(postgres.url)
        print(json.dumps(asyncio.run(measure(postgres.url, count))))


if __name__ == "__main__":
    main()
