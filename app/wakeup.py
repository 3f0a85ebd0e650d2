"""A nudge for workers: Postgres NOTIFY. Only ever a hint; polling alone finds everything, a little later."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import psycopg
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

log = structlog.get_logger()

CHANNEL: Final = "callsheet_work"
RECONNECT_S: Final = 2.0


async def announce(session: AsyncSession) -> None:
    """Wake the workers once this transaction is committed."""
    await session.execute(text(f"NOTIFY {CHANNEL}"))


async def listen(url: str, wake: Iterable[asyncio.Event]) -> None:
    """Set every event of *wake* at each announcement, for ever; needs a connection of its own."""
    dsn = url.replace("postgresql+psycopg://", "postgresql://", 1)
    while True:
        with suppress(psycopg.Error, OSError):
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True, connect_timeout=5) as connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                async for _ in connection.notifies():
                    for event in wake:
                        event.set()
        log.warning("listen_interrupted")
        await asyncio.sleep(RECONNECT_S)
