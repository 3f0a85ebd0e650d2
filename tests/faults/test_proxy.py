"""The proxy does to bytes what it was told, and nothing else."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest

from tests.faults.proxy import Faults, Proxy, Way


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """A proxy in front of an echo, which says good-bye when its caller has no more to say."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(1000):
                writer.write(piece)
                await writer.drain()
            writer.write(b"bye")
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, Proxy(("127.0.0.1", server.sockets[0].getsockname()[1])) as found:
        yield found


class Caller:
    """One connection through the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.heard = b""

    @classmethod
    async def of(cls, proxy: Proxy) -> "Caller":
        return cls(*await asyncio.open_connection("127.0.0.1", proxy.port))

    def say(self, words: bytes) -> None:
        self.writer.write(words)

    async def hear(self, within_s: float = 30.0) -> bytes:
        async with asyncio.timeout(within_s):
            return await self.reader.read(1000)

    async def hear_all(self) -> None:
        while piece := await self.hear():
            self.heard += piece

    async def asked(self, words: bytes) -> bytes:
        self.say(words)
        return await self.hear()


async def test_bytes_pass_both_ways(proxy):
    caller = await Caller.of(proxy)

    assert await caller.asked(b"one") == b"one"
    assert await caller.asked(b"two") == b"two"
    caller.writer.close()


async def test_a_polite_end_passes_one_way_while_the_other_goes_on(proxy):
    caller = await Caller.of(proxy)

    caller.writer.write_eof()

    assert await caller.hear() == b"bye"
    assert await caller.hear() == b""
    caller.writer.close()


async def test_a_delay_holds_for_open_connections(proxy):
    caller = await Caller.of(proxy)
    await caller.asked(b"quick")

    proxy.faults = Faults(delay_s=0.05)
    since = time.monotonic()

    assert await caller.asked(b"slow") == b"slow"
    assert time.monotonic() - since >= 0.1
    caller.writer.close()


async def test_a_black_hole_swallows_one_way_and_can_be_closed_again(proxy):
    caller = await Caller.of(proxy)
    proxy.faults = Faults(swallow=frozenset({Way.DOWN}))

    caller.say(b"lost")
    with pytest.raises(TimeoutError):
        await caller.hear(within_s=0.05)
    await proxy.swallowed.wait()
    proxy.faults = Faults()

    assert await caller.asked(b"found") == b"found"
    caller.writer.close()


@pytest.mark.parametrize("way", Way)
async def test_a_cut_lets_exactly_so_many_bytes_through_and_happens_once(proxy, way):
    caller = await Caller.of(proxy)
    proxy.faults = Faults(cut_after={way: 7})

    assert await caller.asked(b"abcd") == b"abcd"
    caller.say(b"efgh")
    with pytest.raises(ConnectionResetError):
        await caller.hear_all()
    again = await Caller.of(proxy)

    # On the way up the echo of the last bytes has no way back.
    assert caller.heard in ({b"", b"efg"} if way is Way.DOWN else {b""})
    assert await again.asked(b"again") == b"again"
    again.writer.close()


async def test_half_closed_the_other_side_hears_an_end(proxy):
    caller = await Caller.of(proxy)
    proxy.faults = Faults(half_close=frozenset({Way.UP}))

    caller.say(b"never arrives")

    assert await caller.hear() == b"bye"
    caller.writer.close()


async def test_a_reset_ends_every_connection_at_once(proxy):
    callers = [await Caller.of(proxy) for _ in range(3)]
    for caller in callers:
        await caller.asked(b"here")

    assert proxy.reset() == 3

    for caller in callers:
        with pytest.raises(ConnectionResetError):
            await caller.hear()


@pytest.mark.parametrize("turns", range(6))
async def test_who_was_taken_in_just_before_the_end_is_reset_and_not_lost(turns):
    proxy = Proxy(("127.0.0.1", 1))
    await proxy.listen()
    with socket.create_connection(("127.0.0.1", proxy.port)) as caller:
        caller.setblocking(False)
        for _ in range(turns):
            await asyncio.sleep(0)

        await proxy.__aexit__()

        async with asyncio.timeout(30):
            with pytest.raises(ConnectionResetError):
                await asyncio.get_running_loop().sock_recv(caller, 1)


async def test_refused_connections_are_reset(proxy):
    proxy.faults = Faults(refuse=True)
    caller = await Caller.of(proxy)

    with pytest.raises(ConnectionResetError):
        await caller.hear()


async def test_a_target_that_is_gone_resets_the_caller():
    async with Proxy(("127.0.0.1", 1)) as proxy:
        caller = await Caller.of(proxy)

        with pytest.raises(ConnectionResetError):
            await caller.hear()
