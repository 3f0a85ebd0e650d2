"""m: the dispatcher's own HTTP client, against a fal that costs nothing."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from app.fal.client import FalClient
from app.fal.messages import Accepted
from app.http import new_client
from tests.bench.figure import Figure, Omitted, Sample, Wrong
from tests.bench.stage import MODEL, Stage

IN_FLIGHT = 32
INPUT = {"prompt": "a mecha lands " * 20, "duration": "5"}
WEBHOOK = "http://127.0.0.1:8000/webhooks/fal/" + "x" * 64


async def per_second(stage: Stage, submit: Callable[[], Awaitable[bool]]) -> Sample:
    """Submits per second, all of them right."""
    until = time.perf_counter() + stage.seconds
    done = 0

    async def one_after_the_other() -> None:
        nonlocal done
        while time.perf_counter() < until:
            if not await submit():
                raise Wrong("a submit was not accepted")
            done += 1

    since, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one_after_the_other() for _ in range(IN_FLIGHT)))
    took_s = time.perf_counter() - since
    return Sample(done / took_s, {"cpu_us_each": round((time.process_time() - cpu) / done * 1e6)})


async def ours(stage: Stage) -> Sample:
    async with stage.fal() as port, new_client(30) as http:
        fal = FalClient(http, queue_url=f"http://127.0.0.1:{port}/queue", key="bench")

        async def submit() -> bool:
            return isinstance(await fal.submit(MODEL, INPUT, webhook_url=WEBHOOK), Accepted)

        return await per_second(stage, submit)


async def aiohttp_itself(stage: Stage) -> Sample:
    try:
        import aiohttp  # noqa: PLC0415 - comes with `make bench` only
    except ImportError:
        raise Omitted("aiohttp isn't installed") from None
    async with stage.fal() as port, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=100)) as http:

        async def submit() -> bool:
            url, params = f"http://127.0.0.1:{port}/queue/{MODEL}", {"fal_webhook": WEBHOOK}
            async with asyncio.timeout(30):
                async with http.post(url, params=params, json=INPUT, headers={"Authorization": "Key bench"}) as answer:
                    return bool((await answer.json())["request_id"])

        return await per_second(stage, submit)


FIGURES = (
    Figure(
        "m", "submits/s of the dispatcher's client, 32 in flight", "aiohttp itself", ours, aiohttp_itself, at_least=0.35
    ),
)
