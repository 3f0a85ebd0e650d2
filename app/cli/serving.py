"""The HTTP server: uvicorn, told to end what would go on for ever."""

import asyncio
import gc
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.body import BYTES_PER_S

TICK_S: Final = 0.5
"""How often a server looks whether it is to stop, and what time it is; uvicorn's tenth of a second is felt idle."""
HEAD: Final = b"HTTP/"
"""How the head of an answer begins."""
PARTS: Final = 10
"""How many parts a wait for a client has."""


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


class Together:
    """
    A transport that sends the head of an answer with what follows it.

    uvicorn writes the head of an answer and then its body: two system calls, two packets, two wake-ups of the client.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""
        # Asked several times for each request.
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        """All else is as the *transport* has it."""
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send *data*; a head together with what follows it, or alone if nothing does before anything else happens."""
        if not self._head and data[: len(HEAD)] == HEAD:
            self._head = data
            self._loop.call_soon(self._send)
        else:
            self._send(data)

    def close(self) -> None:
        """Send what is left, and close."""
        self._send()
        self._transport.close()

    def _send(self, data: bytes = b"") -> None:
        if self._head or data:
            self._transport.write(self._head + data)
            self._head = b""


class Wait:
    """
    Calls *over* once *wait_s* seconds have passed in which the process ran, and again after each `begin`.

    A process that stood still, as in a stopped container, finds its timers due before it has read what came meanwhile,
    and clients could be served no more than fits into a socket. So a part of the wait that took twice its time or more
    doesn't count.
    """

    __slots__ = ("_left", "_loop", "_over", "_part_s", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, wait_s: float, over: Callable[[], None]) -> None:
        self._loop = loop
        self._part_s = wait_s / PARTS
        self._over = over
        self._left = PARTS
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Wait from now on."""
        self.end()
        self._left = PARTS
        self._next()

    def end(self) -> None:
        """Wait no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _next(self) -> None:
        late_at = self._loop.time() + 2 * self._part_s
        self._timer = self._loop.call_later(self._part_s, self._passed, late_at)

    def _passed(self, late_at: float) -> None:
        if self._loop.time() < late_at:
            self._left -= 1
        if self._left > 0:
            self._next()
        else:
            self._over()


class Patient(HttpToolsProtocol):
    """
    uvicorn's HTTP, which by itself waits for ever for the head of a request, and until an answer is taken.

    This waits *slow_s* seconds for a head, and for as long as at least BYTES_PER_S of an answer are taken in each.
    """

    def __init__(self, *given: Any, slow_s: float, **named: Any) -> None:
        super().__init__(*given, **named)
        self._least = slow_s * BYTES_PER_S
        self._unsent = 0
        self._head = Wait(self.loop, slow_s, self._give_up)
        self._reader = Wait(self.loop, slow_s, self._judge_reader)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody is there, and may say what they want."""
        super().connection_made(cast("asyncio.Transport", Together(transport, self.loop)))
        # Whatever they haven't taken is waited for, also what would be left when the connection is closed.
        transport.set_write_buffer_limits(high=0)
        self._await_head()

    def on_headers_complete(self) -> None:
        """They did."""
        self._head.end()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """They were answered, and may ask for more, once what is left of this request has come."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """They are gone."""
        self._head.end()
        self._reader.end()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """They don't take an answer as fast as it comes."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """They took what there was."""
        self._reader.end()
        super().resume_writing()

    def _await_head(self) -> None:
        if not self.transport.is_closing():
            self._head.begin()

    def _give_up(self) -> None:
        self.transport.close()

    def _await_reader(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        self._reader.begin()

    def _judge_reader(self) -> None:
        if self._unsent - self.transport.get_write_buffer_size() < self._least:
            # Closing would wait for them once more.
            self.transport.abort()
        else:
            self._await_reader()


def config(
    app: FastAPI, host: str, port: int, *, stop_s: int, slow_s: float = 30.0, keep_alive_s: int = 5
) -> uvicorn.Config:
    """
    How *app* is served; when told to stop, answers that are under way have *stop_s* seconds.

    A connection is closed if a request's head isn't whole *slow_s* seconds after it could begin, if an answer is taken
    at less than BYTES_PER_S for as long, or if nothing at all came for *keep_alive_s* after an answer.
    """
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=cast("type[asyncio.Protocol]", partial(Patient, slow_s=slow_s)),
        timeout_keep_alive=keep_alive_s,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=stop_s,
    )
