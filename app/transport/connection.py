"""One connection: a request goes out, its answer comes back, and then the next."""

import asyncio
import select
from collections.abc import Callable
from typing import Final, cast

import httptools
import httpx

LARGEST_ANSWER_BYTES: Final = 64 * 1024 * 1024
LARGEST_HEAD_BYTES: Final = 1024 * 1024
"""All of an answer that isn't its body: nobody reads it, so it would fill our memory."""
MOST_HEADERS: Final = 256
"""To take in many more would hold everybody up."""
INFORMATIONAL: Final = range(100, 200)


class Connection(asyncio.Protocol):
    """
    A kept-alive connection, for one exchange at a time: `send`, `answer`, and each `part` of its body until `over`.

    `reusable` is False for good as soon as anything happens that makes what comes next doubtful: bytes that
    nobody asked for, an answer that isn't whole, or the other side closing.
    """

    def __init__(self) -> None:
        self.reusable = True
        self.over = True
        """Whether the answer to what was sent last is whole."""
        self.idle_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._readable = select.poll()
        self._parser = httptools.HttpResponseParser(self)
        self._come: asyncio.Future[None] | None = None
        self._read_s: float | None = None
        self._head_only = False
        self._headers: list[tuple[bytes, bytes]] = []
        self._begin()

    # --- For the pool ------------------------------------------------------------------------------------------

    def is_fresh(self) -> bool:
        """Whether a request may be written: nothing has come since the last answer, not even the end."""
        return self.reusable and not self._readable.poll(0)

    def send(self, head: bytes, body: bytes) -> None:
        """Write a request, all of it, once."""
        self.over = False
        self._begin()
        self._transport.write(head + body)

    async def answer(self, stream: httpx.AsyncByteStream, *, head_only: bool, read_s: float | None) -> httpx.Response:
        """
        The answer to what was sent, as soon as its head is there; *stream* has its body.

        Raises httpx.ReadTimeout after *read_s* without a byte, ReadError or RemoteProtocolError if it broke off.
        """
        self._head_only, self._read_s = head_only, read_s
        if self._transport.is_closing():
            self._fail(httpx.ReadError("The connection was lost."))
        await self._until(lambda: self._headed)
        return httpx.Response(
            self._status,
            headers=self._headers,
            stream=stream,
            extensions={"http_version": b"HTTP/1.1", "reason_phrase": self._reason},
        )

    async def part(self) -> bytes:
        """What has come of the answer's body since the last part; empty at its end. Raises what `answer` raises."""
        await self._until(lambda: bool(self._body) or self.over)
        part = bytes(self._body)
        self._body.clear()
        return part

    def close(self) -> None:
        """Close it, whatever is under way."""
        self.reusable = False
        self._transport.abort()

    # --- asyncio -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._readable.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        if self.over:
            # An answer to nothing; whatever it belongs to, it isn't the next request.
            self.close()
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(httpx.RemoteProtocolError(f"The answer isn't HTTP ({type(error).__name__})."))
        if self._bodied > LARGEST_ANSWER_BYTES or self._received - self._bodied > LARGEST_HEAD_BYTES:
            self._fail(httpx.ReadError("The answer is too large."))
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self.reusable = False
        if self._headed and not self._framed and error is None:
            self.over = True
        elif error is not None:
            self._fail(httpx.ReadError(type(error).__name__))
        else:
            self._fail(httpx.RemoteProtocolError("The connection was closed before the answer was whole."))
        self._wake()

    # --- httptools ---------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self.over:
            raise ValueError("An answer to nothing.")
        self._reason = b""
        self._headers = []

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._headed:
            # After the body; nobody looks there.
            return
        if len(self._headers) == MOST_HEADERS:
            raise ValueError("Too many headers.")
        self._headers.append((name, value))
        lowered = name.lower()
        self._framed |= lowered == b"content-length" or (
            lowered == b"transfer-encoding" and b"chunked" in value.lower()
        )

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if self._status in INFORMATIONAL:
            self._framed = False
            return
        self._headed = True
        if self._head_only:
            # Nothing tells the parser that no body follows.
            self.reusable = False
            self.over = True

    def on_body(self, body: bytes) -> None:
        self._bodied += len(body)
        self._body += body

    def on_message_complete(self) -> None:
        if self._status not in INFORMATIONAL:
            if not self._parser.should_keep_alive() or self._transport.get_write_buffer_size():
                self.reusable = False
            self.over = True

    # --- What has come -----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._status = 0
        self._reason = b""
        self._headers = []
        self._body = bytearray()
        self._received = self._bodied = 0
        self._headed = self._framed = False
        self._error: httpx.TransportError | None = None

    async def _until(self, enough: Callable[[], bool]) -> None:
        """Wait until *enough* has come. Raises what happened instead."""
        while not enough():
            if self._error is not None:
                raise self._error
            self._come = self._loop.create_future()
            late = self._loop.call_later(self._read_s, self._time_out) if self._read_s is not None else None
            try:
                await self._come
            finally:
                self._come = None
                if late is not None:
                    late.cancel()

    def _time_out(self) -> None:
        self._fail(httpx.ReadTimeout(f"Nothing was heard for {self._read_s:g} s."))
        self._wake()

    def _fail(self, error: httpx.TransportError) -> None:
        self.reusable = False
        if not self.over and self._error is None:
            self._error = error

    def _wake(self) -> None:
        if self._come is not None and not self._come.done():
            self._come.set_result(None)
