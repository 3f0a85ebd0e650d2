"""
A TCP proxy that can be told to misbehave while it runs.

It delays, swallows, cuts, half closes and resets; what it does to bytes holds for connections that are
open already, too. UP is from the client to the target, DOWN is back.
"""

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from tests.listening import deafen

CHUNK: Final = 65_536
LINGER_NOT: Final = struct.pack("ii", 1, 0)


class Way(StrEnum):
    """Where bytes go."""

    UP = "up"
    DOWN = "down"


@dataclass(slots=True)
class Faults:
    """What the proxy does to the bytes that pass; without a word said, nothing."""

    delay_s: float = 0.0
    """How long every piece waits before it goes on."""
    swallow: frozenset[Way] = frozenset()
    """A black hole: these ways are read and go nowhere, while the connection looks alive."""
    half_close: frozenset[Way] = frozenset()
    """The next piece that way is replaced by an end of stream; the other way goes on."""
    cut_after: dict[Way, int] = field(default_factory=dict)
    """After so many more bytes that way the connection they are on is reset; once."""
    refuse: bool = False
    """New connections are reset at once."""


class Proxy:
    """A port of our own in front of *target*: a host and port, or the path of a Unix socket."""

    def __init__(self, target: tuple[str, int] | Path) -> None:
        self.target = target
        self.faults = Faults()
        self.port = 0
        self.swallowed = asyncio.Event()
        """Set by the first piece that went nowhere."""
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        """Listen on a free port of this machine."""
        await self.listen()
        return self

    async def listen(self) -> None:
        """Take connections on the same port as before, if there was one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def deaf(self) -> None:
        """Until told to listen, nobody takes new connections here, and those there are get reset."""
        assert self._server is not None
        await deafen(self._server)
        self.reset()

    async def __aexit__(self, *_: object) -> None:
        """Take no more connections, and reset those there are."""
        await self.deaf()
        await asyncio.gather(*self._open.values(), return_exceptions=True)

    def reset(self) -> int:
        """Reset every open connection; how many that were."""
        found = list(self._open)
        for client in found:
            _reset(client)
            self._open[client].cancel()
        return len(found)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[client] = task
        target: asyncio.StreamWriter | None = None
        try:
            if self.faults.refuse:
                raise ConnectionResetError
            answers, target = await self._connect()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(Way.UP, reader, target))
                group.create_task(self._pump(Way.DOWN, answers, client))
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            _reset(client)
        finally:
            del self._open[client]
            for side in (client, target):
                if side is not None:
                    side.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.target, Path):
            return await asyncio.open_unix_connection(self.target)
        return await asyncio.open_connection(*self.target)

    async def _pump(self, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while piece := await source.read(CHUNK):
            if self.faults.delay_s:
                await asyncio.sleep(self.faults.delay_s)
            if way in self.faults.half_close:
                break
            if way in self.faults.swallow:
                self.swallowed.set()
                continue
            left = self.faults.cut_after.get(way)
            if left is None or len(piece) < left:
                if left is not None:
                    self.faults.cut_after[way] = left - len(piece)
                sink.write(piece)
                await sink.drain()
                continue
            del self.faults.cut_after[way]
            sink.write(piece[:left])
            await sink.drain()
            raise ConnectionResetError
        with contextlib.suppress(OSError):
            sink.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    found = writer.get_extra_info("socket")
    if found is not None and found.family != socket.AF_UNIX and found.fileno() != -1:
        # Without this the other side would see a polite end.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    writer.transport.abort()
