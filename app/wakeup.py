"""
A nudge for other processes: Postgres NOTIFY. Only ever a hint; polling alone finds everything, a little later.

It is sent after the commit it tells of, on a connection of its own and for many commits at once: within a
transaction it would make Postgres commit one such transaction at a time.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Final, Self

import psycopg
import structlog

log = structlog.get_logger()

WORK: Final = "callsheet_work"
"""There is something to do: those loops of workers look that are named along, or all if none is."""
NEWS: Final = "callsheet_news"
"""Something happened to jobs: those who follow them look. Workers don't, or their own doings would wake them."""
RECONNECT_S: Final = 2.0
TOGETHER_S: Final = 0.005

# An order is for the dispatcher alone; the others would ask Postgres for nothing, just when it is in a hurry.
DISPATCHER: Final = "dispatcher"
RECONCILER: Final = "reconciler"
RESCUER: Final = "rescuer"
SENDER: Final = "sender"
ROOM: Final = "room"
"""The dispatcher, too, but a moment later: more may go to fal, and what ends together is looked after once."""
EVERYBODY: Final = ""


class Announcer:
    """Tells other processes that there is something to look at on *channel*, and *here* without the way round."""

    def __init__(self, url: str, channel: str = WORK, *, here: Sequence[asyncio.Event] = ()) -> None:
        self._url = url
        self._channel = channel
        self._here = here
        self._news = asyncio.Event()
        self._whom: set[str] = set()
        self._telling: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to tell."""
        self._telling = asyncio.create_task(self._tell())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Tell no more."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)

    def announce(self, *whom: str) -> None:
        """Something was committed that *whom* should look at, or everybody if that isn't said."""
        # Those here go first: somebody may be looking at a stream.
        for event in self._here:
            event.set()
        self._whom.update(whom or {EVERYBODY})
        self._news.set()

    async def _tell(self) -> None:
        while True:
            await self._news.wait()
            with suppress(psycopg.Error, OSError):
                async with await _connect(self._url) as connection:
                    while True:
                        await self._news.wait()
                        self._news.clear()
                        whom, self._whom = self._whom, set()
                        named = "" if EVERYBODY in whom else " ".join(sorted(whom))
                        await connection.execute(f"NOTIFY {self._channel}, '{named}'")
                        await asyncio.sleep(TOGETHER_S)
            # Without a connection there is nobody to tell; polling finds what came meanwhile.
            self._news.clear()
            await asyncio.sleep(RECONNECT_S)


async def announce_once(url: str) -> None:
    """Tell of what a process that is about to end has committed; without a connection, polling finds it."""
    with suppress(psycopg.Error, OSError):
        async with await _connect(url) as connection:
            await connection.execute(f"NOTIFY {WORK}")


async def listen(url: str, hear: Callable[[Collection[str]], None], channels: Sequence[str] = (WORK,)) -> None:
    """
    Call *hear* with those who are named, or nobody for all, at each announcement on *channels*, for ever.

    It needs a connection of its own.
    """
    while True:
        with suppress(psycopg.Error, OSError):
            async with await _connect(url) as connection:
                for channel in channels:
                    await connection.execute(f"LISTEN {channel}")
                # What was announced while nobody listened here is looked for at once.
                hear(())
                while True:
                    await _readable(connection)
                    async for notify in connection.notifies(stop_after=1):
                        hear(notify.payload.split())
        log.warning("listen_interrupted")
        await asyncio.sleep(RECONNECT_S)


async def _readable(connection: "psycopg.AsyncConnection[tuple[object, ...]]") -> None:
    """Wait until something has come; psycopg's own wait looks ten times a second."""
    come = asyncio.Event()
    loop, number = asyncio.get_running_loop(), connection.fileno()
    loop.add_reader(number, come.set)
    try:
        await come.wait()
    finally:
        loop.remove_reader(number)


async def _connect(url: str) -> "psycopg.AsyncConnection[tuple[object, ...]]":
    dsn = url.replace("postgresql+psycopg://", "postgresql://", 1)
    return await psycopg.AsyncConnection.connect(
        dsn, autocommit=True, connect_timeout=5, keepalives_idle=10, keepalives_interval=5, keepalives_count=3
    )
