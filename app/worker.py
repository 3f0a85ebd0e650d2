"""The background process: every loop that takes work, started and drained."""

import asyncio
import gc
from collections.abc import Callable, Collection, Coroutine, Mapping
from functools import partial
from typing import Any, Final, Protocol

import structlog

from app import wakeup
from app.jobs import lanes
from app.jobs.tables import AT_FAL
from app.lines import Few
from app.wiring import Parts

log = structlog.get_logger()

LONGEST_PAUSE_S: Final = 60.0
"""How long a loop goes without a look of its own, should the one for all of them not see what it would find."""
TOGETHER_S: Final = 0.02
"""What comes within this time of each other is looked for once."""
FIRST: Final = wakeup.DISPATCHER
"""Looks at once when something is announced; the others, when they don't get in its way any more."""
FOLLOWED: Final = (FIRST, "expirer", wakeup.RECONCILER)
"""What these do is news to who follows a job; what the others do would only wake them."""
ANNOUNCED: Final = (FIRST, wakeup.RECONCILER, wakeup.RESCUER, wakeup.SENDER)
# What each loop would find, in one look for all of them: most of the time it is nothing. The order keeps Postgres
# from looking through all deliveries where it expects many to be due.
LOOK: Final = f"""
    SELECT EXISTS (SELECT FROM jobs WHERE status = 'queued' AND deadline_at <= now()) AS expirer,
        EXISTS (SELECT FROM jobs WHERE {AT_FAL} AND due_at <= now()) AS reconciler,
        EXISTS (SELECT FROM outputs WHERE due_at <= now()) AS rescuer,
        (SELECT true FROM callback_deliveries WHERE due_at <= now() ORDER BY tenant_id, endpoint_id LIMIT 1) AS sender,
        EXISTS (SELECT FROM chores WHERE due_at <= now()) AS chores
"""  # noqa: S608 - of a constant


class Source(Protocol):
    """Where work comes from."""

    @property
    def at_once(self) -> int:
        """How much of it may be under way at once."""

    async def take(self, limit: int) -> list[Coroutine[Any, Any, None]]:
        """Up to *limit* pieces of work, now ours to do."""


async def work(parts: Parts, stop: asyncio.Event, *, drain_s: float) -> None:
    """Take and do work until *stop*; then take nothing new, and give what is under way *drain_s* seconds to end."""
    sources: dict[str, Source] = {
        wakeup.DISPATCHER: parts.dispatcher(),
        "expirer": parts.expirer(),
        wakeup.RECONCILER: parts.reconciler(),
        wakeup.RESCUER: parts.rescuer(),
        wakeup.SENDER: parts.sender(),
        "chores": parts.chores(),
    }
    wake = {name: asyncio.Event() for name in sources}
    # What was imported stays; searching it for garbage would hold up an order for tens of milliseconds.
    gc.collect()
    gc.freeze()
    listening = asyncio.create_task(wakeup.listen(parts.db.url, partial(_wake, wake)))
    looking = asyncio.create_task(_look(parts, wake))
    async with wakeup.Announcer(parts.db.url, wakeup.NEWS) as news:
        loops = [
            asyncio.create_task(
                _loop(
                    name,
                    source,
                    wake[name],
                    stop,
                    drain_s,
                    news.announce if name in FOLLOWED else _tell_nobody,
                )
            )
            for name, source in sources.items()
        ]
        log.info("worker_started", owner=parts.owner)
        await stop.wait()
        for event in wake.values():
            event.set()
        await asyncio.gather(*loops)
    for task in (listening, looking):
        task.cancel()
    await asyncio.gather(listening, looking, return_exceptions=True)
    log.info("worker_stopped", owner=parts.owner)


def _wake(wake: Mapping[str, asyncio.Event], named: Collection[str]) -> None:
    """Wake those that are *named*, as far as there are such here, or all if none is."""
    for name in named or ANNOUNCED:
        if name in wake:
            wake[name].set()
        elif name == wakeup.ROOM:
            asyncio.get_running_loop().call_later(TOGETHER_S, wake[FIRST].set)


async def _look(parts: Parts, wake: Mapping[str, asyncio.Event]) -> None:
    """Wake, every so often, the loops that have something to do that nobody announced."""
    while True:
        await asyncio.sleep(parts.settings.poll_s)
        try:
            found, queued = await parts.db.run_few(_found)
        except Exception as error:  # noqa: BLE001 - it outlives whatever one look ran into
            log.warning("look_interrupted", why=type(error).__name__)
            continue
        # A round of dispatch locks what it counts, which is a write: not every second for nothing.
        if queued.jobs or queued.until:
            wake[FIRST].set()
        for name, is_due in found._asdict().items():
            if is_due:
                wake[name].set()


async def _found(ask: Few) -> tuple[Any, lanes.Due]:
    """Which loops have something to do, and, for the dispatcher, what."""
    (found,), waiting = await ask((LOOK, {}), lanes.waiting(limit=1), commit=True)
    return found, lanes.due(waiting)


async def _loop(
    name: str,
    source: Source,
    wake: asyncio.Event,
    stop: asyncio.Event,
    drain_s: float,
    announce: Callable[[], None],
) -> None:
    """Keep up to `at_once` pieces of work going: a slow one takes one place, not everybody's."""
    running: set[asyncio.Task[None]] = set()

    def over(task: asyncio.Task[None]) -> None:
        running.discard(task)
        announce()
        # More may be possible now; what ends together is looked after once.
        asyncio.get_running_loop().call_later(TOGETHER_S, wake.set)

    while not stop.is_set():
        wake.clear()
        free = source.at_once - len(running)
        taken: list[Coroutine[Any, Any, None]] = []
        try:
            taken = await source.take(free) if free else []
        except Exception as error:  # noqa: BLE001 - a loop outlives whatever one round ran into
            # Only its kind: a driver's text quotes the values of the statement.
            log.warning("loop_interrupted", loop=name, why=type(error).__name__)
        for piece in taken:
            task = asyncio.create_task(_do(name, piece))
            running.add(task)
            task.add_done_callback(over)
        if taken:
            # After them, for fal waits for nobody who only follows.
            announce()
        if len(taken) < free or not free:
            await _pause(wake, LONGEST_PAUSE_S)
            if name != FIRST and not stop.is_set():
                await asyncio.sleep(TOGETHER_S)
    if running:
        _, late = await asyncio.wait(running, timeout=drain_s)
        # What is cut short comes due again when its lease runs out.
        for task in late:
            task.cancel()
        log.info("loop_drained", loop=name, cut_short=len(late))


def _tell_nobody() -> None:
    """What this loop does is no news."""


async def _do(name: str, piece: Coroutine[Any, Any, None]) -> None:
    try:
        await piece
    except Exception as error:  # noqa: BLE001 - one job's trouble is not its neighbours'
        log.error("work_not_done", loop=name, why=type(error).__name__)  # noqa: TRY400 - messages quote rows


async def _pause(wake: asyncio.Event, pause_s: float) -> None:
    try:
        await asyncio.wait_for(wake.wait(), pause_s)
    except TimeoutError:
        return
