"""HTTP that knows how long to wait: for what a client asks, and until it has taken its answer."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.body import BYTES_PER_S

HEAD: Final = b"HTTP/"
"""How the head of an answer begins."""
HEAD_ENDS: Final = b"\r\n\r\n"
PARTS: Final = 10
"""How many parts a wait for a client has."""


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
        """Send *data*; a mere head with what follows it, or alone if nothing does before anything else happens."""
        if not self._head and data[: len(HEAD)] == HEAD and data[-len(HEAD_ENDS) :] == HEAD_ENDS:
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

    __slots__ = ("_is_on", "_left", "_loop", "_over", "_part_s", "_since", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, wait_s: float, over: Callable[[], None]) -> None:
        self._loop = loop
        self._part_s = wait_s / PARTS
        self._over = over
        self._is_on = False
        self._left = PARTS
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Wait from now on."""
        self._is_on, self._left, self._since = True, PARTS, self._loop.time()
        if self._timer is None:
            self._next()

    def end(self) -> None:
        """Wait no more; its timer is left for the next wait, which on a busy connection begins at once."""
        self._is_on = False

    def forget(self) -> None:
        """Wait never again."""
        self.end()
        if self._timer is not None:
            self._timer.cancel()

    def _next(self) -> None:
        wait_s = self._since + self._part_s - self._loop.time()
        self._timer = self._loop.call_later(wait_s, self._passed, self._since)

    def _passed(self, since: float) -> None:
        self._timer = None
        if not self._is_on:
            return
        # Unless it began anew meanwhile.
        if since == self._since:
            self._since = self._loop.time()
            if self._since < since + 2 * self._part_s:
                self._left -= 1
        if self._left > 0:
            self._next()
        else:
            self._is_on = False
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
        self._head.forget()
        self._reader.forget()
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
