"""One connection: a request goes out, its answer comes back, and then the next."""

import asyncio
import select
from typing import Final, cast

import httptools
import httpx

LARGEST_ANSWER_BYTES: Final = 64 * 1024 * 1024
INFORMATIONAL: Final = range(100, 200)


class Connection(asyncio.Protocol):
    """
    A kept-alive connection, for one exchange at a time.

    `reusable` is False for good as soon as anything happens that makes what comes next doubtful: bytes that
    nobody asked for, an answer that isn't whole, or the other side closing.
    """

    def __init__(self) -> None:
        self.reusable = True
        self.idle_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._readable = select.poll()
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[httpx.Response] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._head_only = False
        self._reset()

    # --- For the pool ------------------------------------------------------------------------------------------

    def is_fresh(self) -> bool:
        """Whether a request may be written: nothing has come since the last answer, not even the end."""
        return self.reusable and not self._readable.poll(0)

    def send(self, head: bytes, body: bytes) -> None:
        """Write a request, all of it, once."""
        self._transport.write(head + body)

    async def answer(self, *, head_only: bool, read_s: float | None) -> httpx.Response:
        """
        The whole answer to what was sent.

        Raises httpx.ReadTimeout after *read_s* without a byte, ReadError or RemoteProtocolError if it broke off.
        """
        self._head_only = head_only
        self._answer = self._loop.create_future()
        self._heard_at = self._loop.time()
        if read_s is not None:
            self._timer = self._loop.call_later(read_s, self._look, read_s)
        if self._transport.is_closing():
            self._fail(httpx.ReadError("The connection was lost."))
        try:
            return await self._answer
        finally:
            self._answer = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def close(self) -> None:
        """Close it, whatever is under way."""
        self.reusable = False
        self._transport.abort()

    # --- asyncio -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._readable.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        if self._answer is None:
            # An answer to nothing; whatever it belongs to, it isn't the next request.
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(httpx.RemoteProtocolError(f"The answer isn't HTTP ({type(error).__name__})."))

    def connection_lost(self, error: Exception | None) -> None:
        self.reusable = False
        if self._answer is None:
            return
        if self._headed and not self._framed and error is None:
            self._finish()
        elif error is not None:
            self._fail(httpx.ReadError(type(error).__name__))
        else:
            self._fail(httpx.RemoteProtocolError("The connection was closed before the answer was whole."))

    # --- httptools ---------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._answer is None or self._answer.done():
            self.reusable = False
        self._reset()

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))
        lowered = name.lower()
        self._framed |= lowered == b"content-length" or (
            lowered == b"transfer-encoding" and b"chunked" in value.lower()
        )

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if self._status not in INFORMATIONAL:
            self._headed = True
            if self._head_only:
                # Nothing tells the parser that no body follows.
                self.reusable = False
                self._finish()

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > LARGEST_ANSWER_BYTES:
            self._fail(httpx.ReadError("The answer is too large."))

    def on_message_complete(self) -> None:
        if self._status not in INFORMATIONAL:
            if not self._parser.should_keep_alive() or self._transport.get_write_buffer_size():
                self.reusable = False
            self._finish()

    # --- Endings -----------------------------------------------------------------------------------------------

    def _reset(self) -> None:
        self._status = 0
        self._reason = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = bytearray()
        self._headed = self._framed = False

    def _look(self, read_s: float) -> None:
        left_s = self._heard_at + read_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look, read_s)
        else:
            self._fail(httpx.ReadTimeout(f"Nothing was heard for {read_s:g} s."))

    def _finish(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(
                httpx.Response(
                    self._status,
                    headers=self._headers,
                    stream=httpx.ByteStream(bytes(self._body)),
                    extensions={"http_version": b"HTTP/1.1", "reason_phrase": self._reason},
                )
            )

    def _fail(self, error: httpx.TransportError) -> None:
        self.reusable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
