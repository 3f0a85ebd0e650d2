"""f: a whole life, accept → submit → webhook → charge → callback, against queues that do nothing with a job."""

import asyncio
import sys
import time
from typing import Final

import httpx

from tests.bench.figure import Figure, NotYet, Omitted, Sample, Wrong
from tests.bench.figures.accept import RIVALS
from tests.bench.load import Order
from tests.bench.stage import ORDER_BODY, Stage, orders
from tests.ports import free_port

# The receiver is on this machine.
CALLBACKS: Final = {"CALLBACK_ALLOW_NETWORKS": "127.0.0.0/8"}


def how_many(stage: Stage) -> int:
    return 200 if stage.quick else 2_000


def succeeded(stage: Stage) -> int:
    ((count,),) = stage.sql("SELECT count(*) FROM jobs WHERE status = 'succeeded'")
    return int(count)


async def whole_lives(stage: Stage) -> Sample:
    count, told, before = how_many(stage), 0, succeeded(stage)
    stage.put_off()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal told
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                size = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                await reader.readexactly(int(size[0]))
                told += 1
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            # Its end, or that of the measurement.
            writer.close()

    async def heard(of: int) -> None:
        until = time.perf_counter() + 60
        while told < of and time.perf_counter() < until:
            await asyncio.sleep(0.01)

    callback_port = free_port()
    body = ORDER_BODY[:-1] + f', "callback_url": "http://127.0.0.1:{callback_port}/told"}}'
    server = await asyncio.start_server(hear, "127.0.0.1", callback_port)
    async with server, stage.fal(webhook_s=0.0) as fal_port, stage.api(fal_port, **CALLBACKS):
        await _takes_callbacks(stage)
        texts = [[head.replace(f"Length: {len(ORDER_BODY)}", f"Length: {len(body)}"), body] for head, _ in orders()]
        with stage.worker(fal_port, **CALLBACKS):
            # A worker takes a second to start, which is another figure.
            await stage.load(Order(stage.api_port, texts, 202, '"queued"', most=1, seconds=60))
            await heard(1)
            since = time.perf_counter()
            await stage.load(Order(stage.api_port, texts, 202, '"queued"', most=count, seconds=60))
            await heard(count + 1)
            took_s = time.perf_counter() - since
    charged = succeeded(stage) - before
    if told < count + 1 or charged != count + 1:
        raise Wrong(f"of {count + 1} jobs {charged} were charged and {told} told")
    return Sample(count / took_s)


async def _takes_callbacks(stage: Stage) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        document = (await http.get(f"http://127.0.0.1:{stage.api_port}/openapi.json")).json()
    if "callback_url" not in document["components"]["schemas"]["JobOrder"]["properties"]:
        raise NotYet("orders take no callback_url")


async def best_queue(stage: Stage) -> Sample:
    """The better of procrastinate and DBOS; pgqueuer beside them."""
    found = {name: await _queue(stage, name) for name in ("procrastinate", "dbos", "pgqueuer")}
    return Sample(
        max(found["procrastinate"], found["dbos"]), {f"{name}_per_s": round(value, 1) for name, value in found.items()}
    )


async def _queue(stage: Stage, name: str) -> float:
    database = f"queue_{name}"
    stage.sql(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)", stage.postgres.url)
    stage.sql(f"CREATE DATABASE {database}", stage.postgres.url)
    dsn = stage.database(database).replace("+psycopg", "")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"{RIVALS}.{name}_jobs",
        dsn,
        str(how_many(stage)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if b"No module named" in err:
        raise Omitted(f"{name} isn't installed")
    if process.returncode:
        raise Wrong(f"{name}: {err.decode()[-300:]}")
    return float(out.split()[-1])


FIGURES = (
    Figure(
        "f",
        "whole lives/s: accept, submit, webhook, charge, callback",
        "the better of procrastinate and DBOS with a no-op",
        whole_lives,
        best_queue,
        at_least=1.5,
    ),
)
