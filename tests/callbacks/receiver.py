"""A receiver of callbacks on a real socket, which answers as it is told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook

from tests.listening import deafen

Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


def says(head: str, body: bytes = b"") -> Reply:
    """The reply with this status line, these headers and this body."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    return reply


OK = says("200 OK")


@dataclass
class Got:
    """One callback as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    def verified(self, secret: str) -> Any:
        """What it says, once its signature holds."""
        return Webhook(secret).verify(self.body, self.headers)


@dataclass
class Receiver:
    """What came, and how each is answered: the replies in turn, then the last of them for ever."""

    url: str = ""
    replies: list[Reply] = field(default_factory=lambda: [OK])
    got: list[Got] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    answering: set[asyncio.Task[None]] = field(default_factory=set)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._answer(reader, writer))
        self.answering.add(task)
        task.add_done_callback(self.answering.discard)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {
                    name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.got.append(Got(head[0].split()[1], headers, body))
                self.came.set()
                reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
                await reply(writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def receiving(*replies: Reply) -> AsyncIterator[Receiver]:
    """A receiver that is up while the block runs."""
    receiver = Receiver(replies=list(replies) or [OK])
    server = await asyncio.start_server(receiver._take, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/callbacks"
    try:
        yield receiver
    finally:
        await deafen(server)
        for task in receiver.answering:
            task.cancel()
        await asyncio.gather(*receiver.answering, return_exceptions=True)
