"""The background process: every run_once loop, started and drained."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from app import wakeup
from app.wiring import Parts

log = structlog.get_logger()

DRAIN_S: Final = 4.0
LONGEST_PAUSE_S: Final = 15.0


async def work(parts: Parts, stop: asyncio.Event) -> None:
    """Run every loop until *stop*, then let what is under way finish, for a few seconds."""
    loops: dict[str, Callable[[], Awaitable[int]]] = {
        "dispatcher": parts.dispatcher().run_once,
        "reconciler": parts.reconciler().run_once,
    }
    wake = {name: asyncio.Event() for name in loops}
    listening = asyncio.create_task(wakeup.listen(parts.db.url, wake.values()))
    running = [
        asyncio.create_task(_loop(name, run_once, parts.settings.poll_s, wake[name], stop))
        for name, run_once in loops.items()
    ]
    log.info("worker_started", owner=parts.owner)
    await stop.wait()
    for event in wake.values():
        event.set()
    _, late = await asyncio.wait(running, timeout=DRAIN_S)
    # What a cancelled loop had taken comes due again when its lease runs out.
    for task in (listening, *late):
        task.cancel()
    await asyncio.gather(listening, *running, return_exceptions=True)
    log.info("worker_stopped", owner=parts.owner, cut_short=len(late))


async def _loop(
    name: str, run_once: Callable[[], Awaitable[int]], poll_s: float, wake: asyncio.Event, stop: asyncio.Event
) -> None:
    pause_s = poll_s
    while not stop.is_set():
        wake.clear()
        try:
            handled = await run_once()
        except Exception as error:  # noqa: BLE001 - a loop outlives whatever one round ran into
            # Only its kind: a driver's text quotes the values of the statement.
            log.warning("loop_interrupted", loop=name, why=type(error).__name__)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            handled = 0
        else:
            pause_s = poll_s
        if handled == 0 and not stop.is_set():
            try:
                await asyncio.wait_for(wake.wait(), pause_s)
            except TimeoutError:
                continue
