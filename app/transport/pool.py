"""What httpx sees: finds a connection for each request, and keeps it for the next."""

import asyncio
import socket
import ssl
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeVar

import httpx

from app.transport.connection import Connection
from app.transport.dial import dial

KEPT_S: Final = 5.0
PORTS: Final = {"http": 80, "https": 443}

Origin = tuple[str, str, int]
Dial = Callable[[str, int], Awaitable[socket.socket]]
"""Opens a socket to a host and port; raises OSError."""
T = TypeVar("T")


class Body(httpx.AsyncByteStream):
    """The body of an answer, as it comes; whoever closes it, having read it or not, lets its connection go."""

    def __init__(self, connection: Connection, let_go: Callable[[], None]) -> None:
        self._connection = connection
        self._let_go: Callable[[], None] | None = let_go

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while part := await self._connection.part():
            yield part

    async def aclose(self) -> None:
        """Let the connection go, once."""
        let_go, self._let_go = self._let_go, None
        if let_go is not None:
            let_go()


class PooledTransport(httpx.AsyncBaseTransport):
    """
    Sends requests over kept-alive connections, at most *at_once* at a time; as many may be idle, wherever they lead.

    A request's body must be in memory. Its `extensions["sent"]` says whether the other side may have any of it, for
    whoever stops waiting before there is an answer. An idle connection is kept for *kept_s* at most, since servers
    close them after some seconds and a request that crosses that end is lost.
    """

    def __init__(
        self,
        *,
        at_once: int = 100,
        kept_s: float = KEPT_S,
        ssl_context: ssl.SSLContext | None = None,
        dial: Dial = dial,
    ) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self._at_once = at_once
        self._idle: dict[Origin, deque[Connection]] = defaultdict(deque)
        self._kept_s = kept_s
        self._dial = dial
        self._sweeping: asyncio.TimerHandle | None = None
        self._tls = ssl_context or httpx.create_ssl_context(trust_env=False)
        self._tls.set_alpn_protocols(["http/1.1"])

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        origin = _origin(request)
        body = await request.aread()
        head = _head(request)
        timeout: dict[str, float | None] = request.extensions.get("timeout", {})
        request.extensions["sent"] = False
        try:
            await _within(timeout.get("pool"), self._slots.acquire())
        except TimeoutError as error:
            raise httpx.PoolTimeout("Too many requests are under way.", request=request) from error
        try:
            connection = self._known(origin) or await self._new(origin, timeout.get("connect"))
            stream = Body(connection, partial(self._let_go, origin, connection))
            try:
                # From here on the other side may have it, and nothing may say otherwise.
                request.extensions["sent"] = True
                connection.send(head, body)
                return await connection.answer(stream, head_only=request.method == "HEAD", read_s=timeout.get("read"))
            except BaseException:
                connection.close()
                raise
        except BaseException:
            self._slots.release()
            raise

    async def aclose(self) -> None:
        """Close every idle connection."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()
        # The sockets are closed in the loop's next round.
        await asyncio.sleep(0)

    def _known(self, origin: Origin) -> Connection | None:
        idle = self._idle.get(origin)
        oldest = asyncio.get_running_loop().time() - self._kept_s
        while idle:
            connection = idle.pop()
            if connection.idle_since > oldest and connection.is_fresh():
                return connection
            connection.close()
        return None

    async def _new(self, origin: Origin, timeout_s: float | None) -> Connection:
        try:
            return await _within(timeout_s, self._connect(*origin))
        except TimeoutError as error:
            raise httpx.ConnectTimeout(f"{origin[1]} can't be reached.") from error
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"{origin[1]} can't be reached ({type(error).__name__}).") from error

    async def _connect(self, scheme: str, host: str, port: int) -> Connection:
        sock: socket.socket = await self._dial(host, port)
        tls: dict[str, Any] = {"ssl": self._tls, "server_hostname": host} if scheme == "https" else {}
        try:
            _, connection = await asyncio.get_running_loop().create_connection(Connection, sock=sock, **tls)
        except BaseException:
            sock.close()
            raise
        return connection

    def _let_go(self, origin: Origin, connection: Connection) -> None:
        """Keep the connection for the next request, if it got all of its answer."""
        self._slots.release()
        # Whoever names a thousand hosts would else take all the sockets we may have.
        full = sum(map(len, self._idle.values())) >= self._at_once
        if full or not (connection.over and connection.reusable):
            connection.close()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle[origin].append(connection)
        if self._sweeping is None:
            self._sweeping = loop.call_later(self._kept_s, self._sweep)

    def _sweep(self) -> None:
        """Close what was idle for too long, also where nobody asks any more."""
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self._kept_s
        for origin, idle in list(self._idle.items()):
            while idle and idle[0].idle_since <= oldest:
                idle.popleft().close()
            if not idle:
                del self._idle[origin]
        self._sweeping = loop.call_later(self._kept_s, self._sweep) if self._idle else None


def _origin(request: httpx.Request) -> Origin:
    url = request.url
    if url.scheme not in PORTS or not url.host:
        raise httpx.UnsupportedProtocol(f"Not an http address: {url.scheme}://{url.host}", request=request)
    return url.scheme, url.raw_host.decode("ascii"), url.port or PORTS[url.scheme]


def _head(request: httpx.Request) -> bytes:
    if "transfer-encoding" in request.headers:
        raise httpx.LocalProtocolError("A body is sent whole, never in chunks.", request=request)
    lines = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%s: %s" % header for header in request.headers.raw]
    head = b"\r\n".join(lines)
    # Each line end that isn't ours, in a key perhaps, would begin a header or a request of its own.
    ours = len(lines) - 1
    if head.count(b"\r") != ours or head.count(b"\n") != ours or b"\0" in head:
        raise httpx.LocalProtocolError("A header holds a line end.", request=request)
    return head + b"\r\n\r\n"


async def _within(timeout_s: float | None, what: Awaitable[T]) -> T:
    async with asyncio.timeout(timeout_s):
        return await what
