"""How a server of a test stops listening, and loses nobody."""

import asyncio
from typing import Final

# How often asyncio's loop turns between taking a connection and calling the one who serves it.
TURNS_TO_SERVE: Final = 4


async def deafen(server: asyncio.Server) -> None:
    """
    Close *server* to new connections; whoever was taken in just now begins to be served.

    asyncio loses a connection whose server is closed before, and later warns that nobody closed it.
    """
    for listener in server.sockets:
        asyncio.get_running_loop().remove_reader(listener)
    for _ in range(TURNS_TO_SERVE):
        await asyncio.sleep(0)
    server.close()
