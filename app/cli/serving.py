"""The HTTP server: uvicorn, told to end what would go on for ever."""

import socket

import uvicorn
from fastapi import FastAPI


class Server(uvicorn.Server):
    """uvicorn waits for every answer before it stops, and an event stream has no end of its own."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams of the app's hub, if it has one; then stop."""
        hub = getattr(getattr(self.config.app, "state", None), "hub", None)
        if hub is not None:
            hub.close()
        await super().shutdown(sockets)


def config(app: FastAPI, host: str, port: int, *, stop_s: int) -> uvicorn.Config:
    """How *app* is served; when told to stop, answers that are under way have *stop_s* seconds."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=stop_s,
    )
