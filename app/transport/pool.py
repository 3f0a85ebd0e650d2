"""What httpx sees: finds a connection for each request, and keeps it for the next."""

import asyncio
import socket
import ssl
from collections import defaultdict, deque
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

import httpx

from app.transport.connection import Connection
from app.transport.dial import dial

KEPT_S: Final = 5.0
PORTS: Final = {"http": 80, "https": 443}

Origin = tuple[str, str, int]
T = TypeVar("T")


class PooledTransport(httpx.AsyncBaseTransport):
    """
    Sends requests over kept-alive connections, at most *at_once* at a time; answers are read whole.

    A request's body must be in memory. An idle connection is used for *kept_s* at most, since servers close them
    after some seconds and a request that crosses that end is lost.
    """

    def __init__(
        self, *, at_once: int = 100, kept_s: float = KEPT_S, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self._idle: dict[Origin, deque[Connection]] = defaultdict(deque)
        self._kept_s = kept_s
        self._tls = ssl_context or httpx.create_ssl_context(trust_env=False)
        self._tls.set_alpn_protocols(["http/1.1"])

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        origin = _origin(request)
        body = await request.aread()
        head = _head(request)
        timeout: dict[str, float | None] = request.extensions.get("timeout", {})
        try:
            await _within(timeout.get("pool"), self._slots.acquire())
        except TimeoutError as error:
            raise httpx.PoolTimeout("Too many requests are under way.", request=request) from error
        try:
            connection = self._known(origin) or await self._new(origin, timeout.get("connect"))
            try:
                # From here on the other side may have it, and nothing may say otherwise.
                connection.send(head, body)
                answer = await connection.answer(head_only=request.method == "HEAD", read_s=timeout.get("read"))
            except BaseException:
                connection.close()
                raise
            self._keep(origin, connection)
            return answer
        finally:
            self._slots.release()

    async def aclose(self) -> None:
        """Close every idle connection."""
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()
        # The sockets are closed in the loop's next round.
        await asyncio.sleep(0)

    def _known(self, origin: Origin) -> Connection | None:
        idle = self._idle[origin]
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
        sock: socket.socket = await dial(host, port)
        tls: dict[str, Any] = {"ssl": self._tls, "server_hostname": host} if scheme == "https" else {}
        try:
            _, connection = await asyncio.get_running_loop().create_connection(Connection, sock=sock, **tls)
        except BaseException:
            sock.close()
            raise
        return connection

    def _keep(self, origin: Origin, connection: Connection) -> None:
        if not connection.reusable:
            connection.close()
            return
        idle = self._idle[origin]
        connection.idle_since = now = asyncio.get_running_loop().time()
        idle.append(connection)
        while idle and idle[0].idle_since <= now - self._kept_s:
            idle.popleft().close()


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
