"""The HTTP server: uvicorn, told to end what would go on for ever."""

import asyncio
import gc
import socket
from functools import partial
from typing import Final, cast

import uvicorn
from fastapi import FastAPI

from app.cli.doorway import Doorway
from app.cli.patient import Patient

TICK_S: Final = 0.5
"""How often a server looks whether it is to stop, and what time it is; uvicorn's tenth of a second is felt idle."""


class Server(uvicorn.Server):
    """uvicorn waits for every answer before it stops, and an event stream has no end of its own."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        # What was imported stays; searching it for garbage would hold up requests for tens of milliseconds.
        gc.collect()
        gc.freeze()

    async def main_loop(self) -> None:
        """Until told to stop."""
        while not await self.on_tick(0):  # noqa: ASYNC110 - uvicorn sets a flag
            await asyncio.sleep(TICK_S)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams of the app's hub, if it has one; then stop."""
        hub = getattr(getattr(self.config.app, "state", None), "hub", None)
        if hub is not None:
            hub.close()
        await super().shutdown(sockets)


def config(
    app: FastAPI, host: str, port: int, *, stop_s: int, slow_s: float = 30.0, keep_alive_s: int = 5
) -> uvicorn.Config:
    """
    How *app* is served; when told to stop, answers that are under way have *stop_s* seconds.

    A connection is closed if a request's head isn't whole *slow_s* seconds after it could begin, if an answer is taken
    at less than BYTES_PER_S for as long, or if nothing at all came for *keep_alive_s* after an answer.
    """
    doors = getattr(app, "doors", None)
    protocol = partial(Patient, slow_s=slow_s) if doors is None else partial(Doorway, slow_s=slow_s, doors=doors)
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=cast("type[asyncio.Protocol]", protocol),
        timeout_keep_alive=keep_alive_s,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=stop_s,
    )
