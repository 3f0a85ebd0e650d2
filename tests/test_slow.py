"""
Slow clients, over raw sockets: what they announce and don't send, or send or take a byte at a time, is given up.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from app.body import Body
from tests import factories as make
from tests.conftest import client_of
from tests.files.samples import png_of
from tests.following import Service, service

SLOW_S = 0.25


@pytest.fixture
async def served(database_url: str, tmp_path: Path) -> AsyncIterator[Service]:
    async with service(database_url, slow_request_s=SLOW_S, data=tmp_path) as started:
        yield started


@pytest.fixture
async def key(db) -> str:
    return (await make.make_key(db))[1]


def called(served: Service, said: bytes, *, room: int | None = None) -> socket.socket:
    """A connection on which *said* came before the service could look, with *room* for what it answers."""
    host, _, port = served.url.removeprefix("http://").partition(":")
    sock = socket.socket()
    if room is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    sock.connect((host, int(port)))
    sock.sendall(said)
    sock.setblocking(False)
    return sock


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join([line, "Host: x", *headers, "", ""]).encode()


async def taken(sock: socket.socket, until: bytes | None = None) -> bytes:
    """All that comes until the service hangs up; that it does is what these tests are about. Or *until* this came."""
    came = b""
    async with asyncio.timeout(20):
        # Who is still sending when it hangs up may find the connection reset after its last word.
        with suppress(ConnectionResetError):
            while part := await asyncio.get_running_loop().sock_recv(sock, 65_536):
                came += part
                if until is not None and until in came:
                    return came
    assert until is None, came
    return came


async def dribble(sock: socket.socket, part: bytes) -> None:
    """Send a byte at a time, until nobody listens any more."""
    with suppress(ConnectionError):
        while True:
            await asyncio.get_running_loop().sock_sendall(sock, part)
            await asyncio.sleep(SLOW_S / 20)


async def hung_up_on(sock: socket.socket, part: bytes) -> bytes:
    """What is answered to one who dribbles *part* for as long as they may."""
    async with asyncio.TaskGroup() as group:
        group.create_task(dribble(sock, part))
        return await taken(sock)


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/quotes", "/webhooks/fal/x"])
@pytest.mark.parametrize("announced", ["Content-Length: 5000", "Transfer-Encoding: chunked"])
async def test_a_body_that_never_comes_is_told_so_and_hung_up_on(served, key, path, announced):
    authorization = f"Authorization: Bearer {key}"
    asking = head(f"POST {path} HTTP/1.1", authorization, "Content-Type: application/json", announced)

    with called(served, asking) as sock:
        answer = await taken(sock)

    assert answer.startswith(b"HTTP/1.1 408 ")
    for said in (b"application/problem+json", b'"code":"body_too_slow"', b"x-request-id:", b"connection: close"):
        assert said in answer.replace(b"Connection", b"connection")


async def test_a_body_that_comes_a_byte_at_a_time_is_too_slow(served, key):
    asking = head("POST /v1/jobs HTTP/1.1", f"Authorization: Bearer {key}", "Content-Length: 100000")

    with called(served, asking) as sock:
        answer = await hung_up_on(sock, b" ")

    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("begun", [b"", b"GET /livez HT", head("GET /livez HTTP/1.1")[:-2]])
async def test_a_head_that_does_not_come_is_hung_up_on(served, begun):
    with called(served, begun) as sock:
        assert await taken(sock) == b""


async def test_a_head_that_comes_a_byte_at_a_time_is_too_slow_also_as_the_second_of_a_connection(served):
    with called(served, head("GET /livez HTTP/1.1")) as sock:
        first = await taken(sock, b"\r\n\r\n")
        sock.sendall(b"GET /livez HTTP/1.1\r\nX: ")
        rest = await hung_up_on(sock, b"x")

    assert (first.startswith(b"HTTP/1.1 204"), rest) == (True, b"")


async def test_a_body_after_its_answer_is_not_waited_for_either(served):
    begun = head("POST /v1/keys/x/rotate HTTP/1.0", "Content-Length: 9", "Connection: keep-alive") + b"{"
    with called(served, begun) as one, called(served, head("GET /livez HTTP/1.1", "Content-Length: 100000")) as other:
        answers = [await taken(one), await hung_up_on(other, b"x")]

    assert answers[0].startswith(b"HTTP/1.1 408 ")
    assert answers[1].startswith(b"HTTP/1.1 204 ")


@pytest.mark.parametrize("rest", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
async def test_a_stream_whose_request_never_ends_ends(served, key, rest):
    with called(served, head("GET /v1/events HTTP/1.1", f"Authorization: Bearer {key}", rest)) as sock:
        answer = await hung_up_on(sock, b"1\r\nx\r\n" if "chunked" in rest else b"x")

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"event: start" in answer
    assert len(served.app.state.hub) == 0


async def test_who_waits_for_an_answer_is_not_slow(served, key):
    """The answer to a stream takes longer than any head may."""
    with called(served, head("GET /v1/events HTTP/1.1", f"Authorization: Bearer {key}")) as sock:
        await taken(sock, b"event: start")

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2 * SLOW_S):
                await taken(sock, b"the end")


@pytest.mark.parametrize(("size", "slow_s", "passes"), [(900_000, 0.0, True), (1, 0.0, False)])
async def test_what_came_buys_time_for_what_is_to_come(size: int, slow_s: float, passes: bool):
    parts: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"x" * size, "more_body": True},
        {"type": "http.request", "body": b"x", "more_body": False},
    ]

    async def receive() -> dict[str, Any]:
        part = parts.pop(0)
        if len(parts) == 0:
            await asyncio.sleep(0.02)
        return part

    body = Body(receive, limit=1_000_000, slow_s=slow_s)
    await body.receive()

    if passes:
        assert (await body.receive())["more_body"] is False
    else:
        with pytest.raises(Exception, match="408"):
            await body.receive()


@pytest.fixture
async def large(served, key) -> str:
    """Where a file is that no socket takes at once."""
    # Past the sockets, where an upload would have to be in time.
    async with client_of(served.app) as client:
        client.headers["authorization"] = f"Bearer {key}"
        file = await client.post("/v1/files", content=png_of(12_000_000))
        assert file.status_code == 201, file.text
        link = await client.get(f"/v1/files/{file.json()['id']}/content")
    return str(link.headers["location"])


async def nobody_is_connected(served: Service) -> None:
    async with asyncio.timeout(20):
        while served.server.server_state.connections:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("rest", [[], ["Connection: close"]])
@pytest.mark.parametrize("sips", [0, 1])
async def test_a_reader_who_takes_nothing_or_a_byte_at_a_time_is_hung_up_on(served, large, rest, sips):
    with called(served, head(f"GET {large} HTTP/1.1", *rest), room=4096) as deaf:
        assert (await asyncio.get_running_loop().sock_recv(deaf, 12)) == b"HTTP/1.1 200"

        reading = asyncio.create_task(sip(deaf, sips))
        await nobody_is_connected(served)
        reading.cancel()

    # Nor does anything of it go on here.
    async with asyncio.timeout(10):
        while served.server.server_state.tasks:
            await asyncio.sleep(0.01)


async def sip(deaf: socket.socket, size: int) -> None:
    while size:
        await asyncio.get_running_loop().sock_recv(deaf, size)
        await asyncio.sleep(SLOW_S / 20)


async def test_a_slow_reader_who_goes_on_gets_the_whole(served, large):
    began, came = time.monotonic(), 0
    with called(served, head(f"GET {large} HTTP/1.1", "Connection: close")) as sock:
        async with asyncio.timeout(60):
            while part := await asyncio.get_running_loop().sock_recv(sock, 200_000):
                came += len(part)
                await asyncio.sleep(SLOW_S / 20)

    assert came > 12_000_000
    assert time.monotonic() - began > SLOW_S
