"""Jobs that do nothing, from enqueue to done, with procrastinate: prints how many a second."""

import asyncio
import sys
import time

from procrastinate import App, PsycopgConnector

IN_FLIGHT = 64


async def main(dsn: str, count: int) -> None:
    app = App(connector=PsycopgConnector(conninfo=dsn, max_size=20))
    done = 0
    all_done = asyncio.Event()

    @app.task(name="nothing")
    async def nothing(prompt: str) -> None:
        nonlocal done
        done += 1
        if done == count:
            all_done.set()

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        worker = asyncio.create_task(
            app.run_worker_async(concurrency=IN_FLIGHT, install_signal_handlers=False, wait=True)
        )
        since = time.perf_counter()
        gate = asyncio.Semaphore(IN_FLIGHT)

        async def enqueue() -> None:
            async with gate:
                await nothing.defer_async(prompt="a mecha lands " * 20)

        await asyncio.gather(*(enqueue() for _ in range(count)))
        await all_done.wait()
        print(count / (time.perf_counter() - since))
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
