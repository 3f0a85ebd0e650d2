"""h and k: live events. A job's own stream, as GET /v1/jobs/{id}/events gives it: history, then live, then the end."""

import asyncio
import resource
import time
from pathlib import Path

import httpx

from tests.bench.fal import webhook_request
from tests.bench.figure import Figure, Omitted, Sample, Wrong
from tests.bench.figures.latency import at, idle_s, round_trip
from tests.bench.figures.webhooks import taken_by_fal
from tests.bench.machine import family
from tests.bench.stage import ORDER_BODY, Stage, key_of

EVENTS = "/v1/jobs/{job_id}/events"


async def opened(port: int, job_id: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A job's stream, after its head."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    path = EVENTS.replace("{job_id}", job_id)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n"
        f"Authorization: Bearer {key_of(1)}\r\n\r\n".encode()
    )
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise Wrong(f"a stream was answered {head[:40]!r}")
    return reader, writer


async def ordered(http: httpx.AsyncClient, port: int) -> str:
    headers = {"Authorization": f"Bearer {key_of(1)}", "Content-Type": "application/json"}
    answer = await http.post(f"http://127.0.0.1:{port}/v1/jobs", content=ORDER_BODY, headers=headers)
    job_id: str = answer.raise_for_status().json()["id"]
    return job_id


async def from_webhook_to_client(stage: Stage) -> list[float]:
    """Milliseconds from sending fal's webhook to reading the event of the job's end."""
    found = []
    stage.put_off()
    async with stage.fal() as fal_port, stage.api(fal_port) as port, httpx.AsyncClient(trust_env=False) as http:
        await stage.has_path(EVENTS)
        with stage.worker(fal_port):
            for number in range(10 if stage.quick else 200):
                reader, writer = await opened(port, await ordered(http, port))
                request_id, url, _ = (await taken_by_fal(fal_port, number + 1))[number]
                await asyncio.sleep(idle_s())
                head, body = webhook_request(request_id, url)
                lines = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
                since = time.perf_counter()
                telling = asyncio.create_task(http.post(url, content=body.encode(), headers=lines))
                async with asyncio.timeout(30):
                    await reader.readuntil(b"succeeded")
                found.append((time.perf_counter() - since) * 1000)
                (await telling).raise_for_status()
                writer.close()
    return found


async def memory_each(stage: Stage) -> Sample:
    """KB of resident memory that one more open stream costs the API."""
    count = 500 if stage.quick else 10_000
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < count + 200:
        raise Omitted(f"this machine allows {most} open files")
    # Processes started from now on may have as many.
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    room = str(count + 100)
    api = stage.api(STREAMS_AT_ONCE=room, STREAMS_PER_KEY=room)
    async with api as port, httpx.AsyncClient(trust_env=False) as http:
        await stage.has_path(EVENTS)
        job_id = await ordered(http, port)
        first = [await opened(port, job_id) for _ in range(20)]
        before = resident_kb(stage.processes["serve"].pid)
        streams = [await opened(port, job_id) for _ in range(count)]
        each = (resident_kb(stage.processes["serve"].pid) - before) / count
        for _, writer in first + streams:
            writer.close()
    return Sample(each, {"streams": count})


def resident_kb(pid: int) -> int:
    """Of a process and its descendants."""
    return sum(
        int(line.split()[1])
        for one in family(pid)
        for line in Path(f"/proc/{one}/status").read_text().splitlines()
        if line.startswith("VmRSS:")
    )


FIGURES = (
    Figure(
        "h",
        "webhook in to event at a client, p50, ms",
        "a loopback round trip of httpx, as idle",
        at(50, from_webhook_to_client),
        round_trip,
        at_most=3,
    ),
    Figure("k", "memory of an open stream, KB", "nothing", memory_each, at_most=40),
)
