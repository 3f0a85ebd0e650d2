"""How answers leave: whole, and in order. And how long a client is waited for."""

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any, cast

import pytest
from uvicorn.server import ServerState

from app.cli.patient import Patient, Together
from app.cli.serving import Server, config

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"
NOTHING = b"HTTP/1.1 204 No Content\r\n\r\n"


class Wire:
    """A transport that notes what it is told to do."""

    def __init__(self) -> None:
        self.did: list[bytes | str] = []
        self.unsent = 0.0

    def write(self, data: bytes) -> None:
        self.did.append(data)

    def close(self) -> None:
        self.did.append("closed")

    def abort(self) -> None:
        self.did.append("aborted")

    def is_closing(self) -> bool:
        return "closed" in self.did

    def get_write_buffer_size(self) -> float:
        return self.unsent

    def set_write_buffer_limits(self, **_: int) -> None:
        pass

    def get_extra_info(self, _: str) -> None:
        pass


async def turn() -> None:
    """Let everything happen that is due."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def together(wire: Wire) -> Any:
    return Together(cast("asyncio.Transport", wire), asyncio.get_running_loop())


async def test_the_head_and_the_body_of_an_answer_leave_as_one():
    wire = Wire()
    transport = together(wire)

    transport.write(HEAD)
    transport.write(b"body")

    assert wire.did == [HEAD + b"body"]
    await turn()
    assert wire.did == [HEAD + b"body"]


async def test_an_answer_in_one_piece_leaves_at_once():
    wire = Wire()

    together(wire).write(HEAD + b"body")

    assert wire.did == [HEAD + b"body"]


async def test_news_in_a_stream_leaves_at_once():
    wire = Wire()
    transport = together(wire)
    transport.write(HEAD)
    transport.write(b"hello ")

    transport.write(b"news ")
    transport.write(b"more")

    assert wire.did == [HEAD + b"hello ", b"news ", b"more"]


async def test_two_heads_in_a_row_leave_in_their_order():
    wire = Wire()
    transport = together(wire)

    transport.write(NOTHING)
    transport.write(HEAD)

    assert wire.did == [NOTHING + HEAD]


async def test_a_head_whose_body_takes_its_time_leaves_alone_and_first():
    wire = Wire()
    transport = together(wire)

    transport.write(HEAD)
    await turn()
    transport.write(b"body")
    await turn()

    assert wire.did == [HEAD, b"body"]


async def test_what_was_written_leaves_before_the_connection_is_closed():
    wire = Wire()
    transport = together(wire)

    transport.write(b"the end")
    transport.close()
    await turn()

    assert wire.did == [b"the end", "closed"]
    assert transport.is_closing()


class Timers:
    """A loop whose time passes when it is told, and brings about what is due."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._timers: list[asyncio.TimerHandle] = []

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, callback: Callable[..., None], *given: Any) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(self.now_s + delay_s, callback, given, cast("asyncio.AbstractEventLoop", self))
        self._timers.append(timer)
        return timer

    def get_debug(self) -> bool:
        return False

    def _timer_handle_cancelled(self, timer: asyncio.TimerHandle) -> None:
        pass

    def run(self, until_s: float) -> None:
        """Until then every timer is on time, but for what the process slept through."""
        while due := [timer for timer in self._timers if timer.when() <= until_s and not timer.cancelled()]:
            first = min(due)
            self._timers.remove(first)
            self.now_s = max(self.now_s, first.when())
            first._run()
        self.now_s = until_s


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """An app that is never called."""


def waited_for(wire: Wire, timers: Timers) -> Patient:
    """Somebody who has connected by *wire*, and has 30 seconds at a time."""
    settings = config(cast("Any", nothing), "127.0.0.1", 0, stop_s=1)
    found = Patient(settings, ServerState(), {}, slow_s=30.0, _loop=timers)
    found.connection_made(cast("asyncio.Transport", wire))
    return found


def test_a_head_is_waited_for_and_no_longer():
    wire, timers = Wire(), Timers()
    waited_for(wire, timers)

    timers.run(29)
    before = list(wire.did)
    timers.run(30)

    assert (before, wire.did) == ([], ["closed"])


def test_a_wait_that_begins_anew_is_a_whole_one():
    """Whatever is left of the timer of the one before."""
    wire, timers = Wire(), Timers()
    client = waited_for(wire, timers)
    timers.run(1)
    client._head.end()
    timers.run(1.5)
    client._head.begin()

    timers.run(31.4)
    before = list(wire.did)
    timers.run(31.5)

    assert (before, wire.did) == ([], ["closed"])


def test_a_wait_that_is_over_ends_nothing_and_nobody_waits_for_who_is_gone():
    wire, timers = Wire(), Timers()
    client = waited_for(wire, timers)
    client._head.end()
    timers.run(100)
    client._head.begin()
    client._head.forget()

    assert wire.did == []
    assert all(timer.cancelled() for timer in timers._timers)


def test_an_answer_that_is_taken_is_waited_for_as_long_as_it_takes():
    wire, timers = Wire(), Timers()
    reader = waited_for(wire, timers)
    reader._head.end()
    wire.unsent = 10_000_000
    reader.pause_writing()

    for second in range(1, 601):
        wire.unsent -= 10_000
        timers.run(second)
    before = list(wire.did)
    for second in range(601, 631):
        wire.unsent -= 9_999
        timers.run(second)

    assert (before, wire.did) == ([], ["aborted"])


@pytest.mark.parametrize(("since_s", "over_s"), [(1, 131), (29, 132)])
@pytest.mark.parametrize("what", ["head", "answer"])
def test_while_the_process_stood_still_nobody_was_slow(what, since_s, over_s):
    wire, timers = Wire(), Timers()
    reader = waited_for(wire, timers)
    if what == "answer":
        reader._head.end()
        wire.unsent = 10_000_000
        reader.pause_writing()
    timers.run(since_s)

    timers.now_s = since_s + 100
    timers.run(over_s - 1)
    before = list(wire.did)
    timers.run(over_s)

    assert (before, wire.did) == ([], ["closed" if what == "head" else "aborted"])


SLOW_S = 0.1


async def across_a_halt() -> bytes:
    """What is answered to a head whose end comes while the process stands still for longer than any may take."""

    async def answers(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    loop = asyncio.get_running_loop()
    settings = config(cast("Any", answers), "127.0.0.1", 0, stop_s=1, slow_s=SLOW_S)
    settings.lifespan = "off"
    server = Server(settings)
    serving = asyncio.create_task(server._serve())  # serve() would take the signals
    while not server.started:
        await asyncio.sleep(0)
    here, there = socket.socketpair()
    with here, there, socket.create_connection(server.servers[0].sockets[0].getsockname()) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n")
        while not server.server_state.connections:
            await asyncio.sleep(0)

        def halt() -> None:
            # Blocks the loop on purpose, and past its look at the sockets: libuv goes on with its timers.
            loop.remove_reader(here)
            sock.sendall(b"Host: x\r\nConnection: close\r\n\r\n")
            time.sleep(2 * SLOW_S)

        here.setblocking(False)
        loop.add_reader(here, halt)
        there.send(b"!")
        sock.setblocking(False)
        try:
            return await asyncio.wait_for(loop.sock_recv(sock, 65_536), 20)
        finally:
            server.should_exit = True
            await serving


async def test_a_head_that_came_while_the_process_stood_still_is_answered():
    uvloop = pytest.importorskip("uvloop", reason="asyncio's own loop looks at its sockets first")

    def run() -> bytes:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(across_a_halt())

    answer = await asyncio.to_thread(run)

    assert answer.startswith(b"HTTP/1.1 204 ")
