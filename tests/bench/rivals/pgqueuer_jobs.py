"""Jobs that do nothing, from enqueue to done, with pgqueuer: prints how many a second."""

import asyncio
import sys
import time

import asyncpg
from pgqueuer import AsyncpgPoolDriver, PgQueuer, Queries
from pgqueuer.models import Job

IN_FLIGHT = 64


async def main(dsn: str, count: int) -> None:
    async with asyncpg.create_pool(dsn, max_size=10) as pool:
        driver = AsyncpgPoolDriver(pool)
        queries = Queries(driver)
        await queries.install()
        worker = PgQueuer(driver)
        done = 0
        all_done = asyncio.Event()

        @worker.entrypoint("nothing")
        async def nothing(job: Job) -> None:
            nonlocal done
            done += 1
            if done == count:
                all_done.set()

        running = asyncio.create_task(worker.run(batch_size=10))
        since = time.perf_counter()
        gate = asyncio.Semaphore(IN_FLIGHT)

        async def enqueue() -> None:
            async with gate:
                await queries.enqueue("nothing", b"a mecha lands " * 20)

        await asyncio.gather(*(enqueue() for _ in range(count)))
        await all_done.wait()
        print(count / (time.perf_counter() - since))
        worker.shutdown.set()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
