"""
Posting webhooks over HTTP/1.1, many at once.

httpx's own pool slows to a crawl with dozens of connections, and in a load test the simulator sends as many
webhooks as it takes orders; this keeps httpx's request and response and replaces what is beneath.
"""

import asyncio
import ssl
from collections import defaultdict
from typing import Final

import httpx

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
LARGEST_ANSWER: Final = 1024 * 1024


class KeepAliveTransport(httpx.AsyncBaseTransport):
    """Sends a request over an idle connection to its target, or over a new one."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, str, int], list[Connection]] = defaultdict(list)
        self._tls: ssl.SSLContext | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        target = (url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80))
        body = await request.aread()
        connection, used = await self._connect(target)
        try:
            answer = await _exchange(connection, request, body)
        except (OSError, httpx.RemoteProtocolError):
            connection[1].close()
            if not used:
                raise
            # An idle connection that its target closed meanwhile says nothing about the target.
            connection, _ = await self._connect(target, fresh=True)
            answer = await _exchange(connection, request, body)
        except BaseException:
            connection[1].close()
            raise
        if answer.headers.get("connection", "").lower() == "close" or not _framed(answer):
            connection[1].close()
        else:
            self._idle[target].append(connection)
        return answer

    async def aclose(self) -> None:
        for connections in self._idle.values():
            for _, writer in connections:
                writer.close()
        self._idle.clear()

    async def _connect(self, target: tuple[str, str, int], *, fresh: bool = False) -> tuple[Connection, bool]:
        idle = self._idle[target]
        while idle and not fresh:
            reader, writer = idle.pop()
            if not (reader.at_eof() or writer.is_closing()):
                return (reader, writer), True
        scheme, host, port = target
        if scheme == "https" and self._tls is None:
            self._tls = ssl.create_default_context()
        tls = self._tls if scheme == "https" else None
        return await asyncio.open_connection(host, port, ssl=tls), False


def _framed(answer: httpx.Response) -> bool:
    chunked = "chunked" in answer.headers.get("transfer-encoding", "")
    return chunked or "content-length" in answer.headers or answer.status_code in {204, 304}


async def _exchange(connection: Connection, request: httpx.Request, body: bytes) -> httpx.Response:
    reader, writer = connection
    lines = [b"%s %s HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [b"%s: %s" % header for header in request.headers.raw]
    writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
    await writer.drain()
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        status, *fields = head[:-4].split(b"\r\n")
        headers = httpx.Headers([(name, value.strip()) for name, _, value in (f.partition(b":") for f in fields)])
        answer = httpx.Response(int(status.split(b" ", 2)[1]), headers=headers)
        content = await _content(reader, answer)
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, IndexError) as error:
        raise httpx.RemoteProtocolError("the target's answer isn't whole", request=request) from error
    return httpx.Response(answer.status_code, headers=_plain(headers), content=content)


def _plain(headers: httpx.Headers) -> httpx.Headers:
    """*headers* without a coding, since nobody reads what a target answers and it needn't be decoded."""
    headers.pop("content-encoding", None)
    return headers


async def _content(reader: asyncio.StreamReader, answer: httpx.Response) -> bytes:
    if answer.status_code in {204, 304}:
        return b""
    if "chunked" in answer.headers.get("transfer-encoding", ""):
        content = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            content += (await reader.readexactly(size + 2))[:-2]
            if len(content) > LARGEST_ANSWER:
                raise ValueError("too much")
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return content
    if "content-length" in answer.headers:
        size = int(answer.headers["content-length"])
        if size > LARGEST_ANSWER:
            raise ValueError("too much")
        return await reader.readexactly(size)
    return await reader.read(LARGEST_ANSWER)
