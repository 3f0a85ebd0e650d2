"""
A nudge for other processes: Postgres NOTIFY. Only ever a hint; polling alone finds everything, a little later.

It is sent after the commit it tells of, on a connection of its own and for many commits at once: within a
transaction it would make Postgres commit one such transaction at a time.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Final, Self

import psycopg
import structlog

log = structlog.get_logger()

WORK: Final = "callsheet_work"
"""There is something to do: workers look."""
NEWS: Final = "callsheet_news"
"""Something happened to jobs: those who follow them look. Workers don't, or their own doings would wake them."""
RECONNECT_S: Final = 2.0
TOGETHER_S: Final = 0.005


class Announcer:
    """Tells other processes that there is something to look at on *channel*, and *here* without the way round."""

    def __init__(self, url: str, channel: str = WORK, *, here: Sequence[asyncio.Event] = ()) -> None:
        self._url = url
        self._channel = channel
        self._here = here
        self._news = asyncio.Event()
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

    def announce(self) -> None:
        """Something was committed that others should look at."""
        self._news.set()
        for event in self._here:
            event.set()

    async def _tell(self) -> None:
        while True:
            await self._news.wait()
            with suppress(psycopg.Error, OSError):
                async with await _connect(self._url) as connection:
                    while True:
                        await self._news.wait()
                        self._news.clear()
                        await connection.execute(f"NOTIFY {self._channel}")
                        await asyncio.sleep(TOGETHER_S)
            # Without a connection there is nobody to tell; polling finds what came meanwhile.
            self._news.clear()
            await asyncio.sleep(RECONNECT_S)


async def announce_once(url: str) -> None:
    """Tell of what a process that is about to end has committed; without a connection, polling finds it."""
    with suppress(psycopg.Error, OSError):
        async with await _connect(url) as connection:
            await connection.execute(f"NOTIFY {WORK}")


async def listen(url: str, wake: Iterable[asyncio.Event], channels: Sequence[str] = (WORK,)) -> None:
    """Set every event of *wake* at each announcement on *channels*, for ever; needs a connection of its own."""
    events = list(wake)
    while True:
        with suppress(psycopg.Error, OSError):
            async with await _connect(url) as connection:
                for channel in channels:
                    await connection.execute(f"LISTEN {channel}")
                # What was announced while nobody listened here is looked for at once.
                for event in events:
                    event.set()
                while True:
                    await _readable(connection)
                    async for _ in connection.notifies(stop_after=1):
                        for event in events:
                            event.set()
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
