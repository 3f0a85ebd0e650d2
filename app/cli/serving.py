"""The HTTP server: uvicorn, told to end what would go on for ever."""

import asyncio
import gc
import socket
from functools import partial
from typing import Any, Final, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

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


class Patient(HttpToolsProtocol):
    """uvicorn's HTTP, which by itself waits for the head of a request for ever; this waits *head_s* seconds."""

    def __init__(self, *given: Any, head_s: float, **named: Any) -> None:
        super().__init__(*given, **named)
        self._head_s = head_s
        self._giving_up: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody is there, and may say what they want."""
        super().connection_made(transport)
        self._await_head()

    def on_headers_complete(self) -> None:
        """They did."""
        self._await_no_head()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """They were answered, and may ask for more, once what is left of this request has come."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """They are gone."""
        self._await_no_head()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._await_no_head()
        if not self.transport.is_closing():
            self._giving_up = self.loop.call_later(self._head_s, self.transport.close)

    def _await_no_head(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()


def config(
    app: FastAPI, host: str, port: int, *, stop_s: int, head_s: float = 30.0, keep_alive_s: int = 5
) -> uvicorn.Config:
    """
    How *app* is served; when told to stop, answers that are under way have *stop_s* seconds.

    A connection is closed if a request's head isn't whole *head_s* seconds after it could begin, or if nothing at all
    came for *keep_alive_s* after an answer.
    """
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=cast("type[asyncio.Protocol]", partial(Patient, head_s=head_s)),
        timeout_keep_alive=keep_alive_s,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=stop_s,
    )
