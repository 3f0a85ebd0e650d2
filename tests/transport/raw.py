"""A server of raw bytes that does what it is told with each request, and counts those it got, whole or in part."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.listening import deafen

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Act = Callable[["RawServer", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]

BODY = b'{"request_id": "r1"}'
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


@dataclass
class RawServer:
    """What came to it, and what it does next; the last act goes on for ever."""

    acts: list[Act]
    port: int = 0
    connections: int = 0
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/queue/model"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await (self.acts.pop(0) if len(self.acts) > 1 else self.acts[0])(self, reader, writer):
                    pass
        finally:
            writer.close()
            self.closed.set()

    async def read_head(self, reader: asyncio.StreamReader) -> int:
        """Read a request's head, and return how long its body is."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        return sum(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Read a whole request."""
        self.bodies.append(await reader.readexactly(await self.read_head(reader)))


def answering(*parts: bytes, then_close: bool = False) -> Act:
    """Read a request whole, and answer with *parts* as they are."""

    async def act(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await server.read(reader)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        return not then_close

    return act


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection the rude way, with RST."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def raw_server(*acts: Act, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawServer]:
    """A server on a port of its own that does one of *acts* a request."""
    found = RawServer(list(acts))
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0, ssl=tls)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        await deafen(server)
