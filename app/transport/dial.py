"""
Open a socket to a host that may have several addresses (RFC 8305, "Happy Eyeballs").

asyncio can do this by itself, uvloop can't; a network with broken IPv6 must not cost the whole time-out.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Iterable
from itertools import chain, zip_longest
from typing import Any, Final

HEAD_START_S: Final = 0.25


async def dial(host: str, port: int) -> socket.socket:
    """
    A connected socket to whichever address of *host* answers first.

    Raises OSError, of the address tried last, if none does.
    """
    return await first_of(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))


async def first_of(found: Iterable[Any]) -> socket.socket:
    """`dial` to whichever of the addresses *found*, as `getaddrinfo` has them, each a moment after the one before."""
    waiting = deque(_mixed(found))
    tried: list[asyncio.Task[socket.socket]] = []
    under_way: set[asyncio.Task[socket.socket]] = set()
    winner: asyncio.Task[socket.socket] | None = None
    try:
        while waiting or under_way:
            if waiting:
                tried.append(asyncio.create_task(_connect(*waiting.popleft())))
                under_way.add(tried[-1])
            head_start_s = HEAD_START_S if waiting else None
            done, under_way = await asyncio.wait(under_way, timeout=head_start_s, return_when=asyncio.FIRST_COMPLETED)
            winner = next((task for task in done if task.exception() is None), None)
            if winner is not None:
                return winner.result()
        return tried[-1].result()
    finally:
        for task in tried:
            if task is not winner and not task.cancel() and task.exception() is None:
                task.result().close()


def _mixed(found: Iterable[Any]) -> Iterable[tuple[Any, ...]]:
    """The addresses with their families taking turns, the resolver's favourite first."""
    families: dict[int, list[tuple[Any, ...]]] = {}
    for family, kind, protocol, _, address in found:
        families.setdefault(family, []).append((family, kind, protocol, address))
    return (address for address in chain(*zip_longest(*families.values())) if address is not None)


async def _connect(family: int, kind: int, protocol: int, address: Any) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
        # asyncio sets it on sockets it opens itself.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock
