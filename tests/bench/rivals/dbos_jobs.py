"""Workflows that do nothing, from enqueue to done, with DBOS: prints how many a second."""

import asyncio
import sys
import time

from dbos import DBOS, DBOSConfig

IN_FLIGHT = 64


@DBOS.workflow()
async def nothing(prompt: str) -> None:
    """Do nothing, durably."""


async def main(dsn: str, count: int) -> None:
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": dsn.replace("postgresql://", "postgresql+psycopg://"),
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()
    queue = await DBOS.register_queue_async("bench", global_concurrency=IN_FLIGHT, polling_interval_sec=0.05)
    since = time.perf_counter()
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def enqueue() -> None:
        async with gate:
            handle = await queue.enqueue_async(nothing, "a mecha lands " * 20)
        await handle.get_result(polling_interval_sec=0.05)

    await asyncio.gather(*(enqueue() for _ in range(count)))
    print(count / (time.perf_counter() - since))
    DBOS.destroy()


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
