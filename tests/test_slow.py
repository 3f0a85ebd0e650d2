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


async def called(served: Service) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = served.url.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port))


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join([line, "Host: x", *headers, "", ""]).encode()


async def to_the_end(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the service hangs up; that it does is what these tests are about."""
    came = b""
    async with asyncio.timeout(20):
        # Who is still sending when it hangs up may find the connection reset after its last word.
        with suppress(ConnectionResetError):
            while part := await reader.read(65_536):
                came += part
    return came


async def dribble(writer: asyncio.StreamWriter, part: bytes) -> None:
    """Send a byte at a time, until nobody listens any more."""
    while not writer.is_closing():
        writer.write(part)
        try:
            await writer.drain()
        except ConnectionError:
            return
        await asyncio.sleep(SLOW_S / 20)


async def hung_up_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, part: bytes) -> bytes:
    """What is answered to one who dribbles *part* for as long as they may."""
    dribbling = asyncio.create_task(dribble(writer, part))
    try:
        return await to_the_end(reader)
    finally:
        writer.close()
        await dribbling


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/quotes", "/webhooks/fal/x"])
@pytest.mark.parametrize("announced", ["Content-Length: 5000", "Transfer-Encoding: chunked"])
async def test_a_body_that_never_comes_is_told_so_and_hung_up_on(served, key, path, announced):
    reader, writer = await called(served)
    authorization = f"Authorization: Bearer {key}"
    writer.write(head(f"POST {path} HTTP/1.1", authorization, "Content-Type: application/json", announced))

    answer = await to_the_end(reader)

    assert answer.startswith(b"HTTP/1.1 408 ")
    for said in (b"application/problem+json", b'"code":"body_too_slow"', b"x-request-id:", b"connection: close"):
        assert said in answer.replace(b"Connection", b"connection")
    writer.close()


async def test_a_body_that_comes_a_byte_at_a_time_is_too_slow(served, key):
    reader, writer = await called(served)
    writer.write(head("POST /v1/jobs HTTP/1.1", f"Authorization: Bearer {key}", "Content-Length: 100000"))

    answer = await hung_up_on(reader, writer, b" ")

    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("begun", [b"", b"GET /livez HT", head("GET /livez HTTP/1.1")[:-2]])
async def test_a_head_that_does_not_come_is_hung_up_on(served, begun):
    reader, writer = await called(served)
    writer.write(begun)

    assert await to_the_end(reader) == b""
    writer.close()


async def test_a_head_that_comes_a_byte_at_a_time_is_too_slow_also_as_the_second_of_a_connection(served):
    reader, writer = await called(served)
    writer.write(head("GET /livez HTTP/1.1"))
    first = await reader.readuntil(b"\r\n\r\n")
    writer.write(b"GET /livez HTTP/1.1\r\nX: ")

    rest = await hung_up_on(reader, writer, b"x")

    assert (first.startswith(b"HTTP/1.1 204"), rest) == (True, b"")


async def test_a_body_after_its_answer_is_not_waited_for_either(served):
    reader, writer = await called(served)
    writer.write(head("POST /v1/keys/x/rotate HTTP/1.0", "Content-Length: 9", "Connection: keep-alive") + b"{")
    reader_2, writer_2 = await called(served)
    writer_2.write(head("GET /livez HTTP/1.1", "Content-Length: 100000"))

    answers = [await to_the_end(reader), await hung_up_on(reader_2, writer_2, b"x")]

    assert answers[0].startswith(b"HTTP/1.1 408 ")
    assert answers[1].startswith(b"HTTP/1.1 204 ")
    writer.close()


@pytest.mark.parametrize("rest", ["Content-Length: 100000", "Transfer-Encoding: chunked"])
async def test_a_stream_whose_request_never_ends_ends(served, key, rest):
    reader, writer = await called(served)
    writer.write(head("GET /v1/events HTTP/1.1", f"Authorization: Bearer {key}", rest))

    answer = await hung_up_on(reader, writer, b"1\r\nx\r\n" if "chunked" in rest else b"x")

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"event: start" in answer
    assert len(served.app.state.hub) == 0


async def test_who_waits_for_an_answer_is_not_slow(served, key):
    """The answer to a stream takes longer than any head may."""
    reader, writer = await called(served)
    writer.write(head("GET /v1/events HTTP/1.1", f"Authorization: Bearer {key}"))
    await reader.readuntil(b"event: start")

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2 * SLOW_S):
            await reader.readuntil(b"the end")
    writer.close()


@pytest.mark.parametrize(("size", "slow_s", "passes"), [(20_000, 0.0, True), (1, 0.0, False)])
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
    async with served.client(key) as client:
        file = await client.post("/v1/files", content=png_of(12_000_000))
        assert file.status_code == 201, file.text
        link = await client.get(f"/v1/files/{file.json()['id']}/content")
    return str(link.headers["location"])


async def nobody_is_connected(served: Service) -> None:
    async with asyncio.timeout(20):
        while served.server.server_state.connections:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("rest", [[], ["Connection: close"]])
@pytest.mark.parametrize("taken", [0, 1])
async def test_a_reader_who_takes_nothing_or_a_byte_at_a_time_is_hung_up_on(served, large, rest, taken):
    await nobody_is_connected(served)
    loop = asyncio.get_running_loop()
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        host, _, port = served.url.removeprefix("http://").partition(":")
        await loop.sock_connect(deaf, (host, int(port)))
        await loop.sock_sendall(deaf, head(f"GET {large} HTTP/1.1", *rest))
        assert (await loop.sock_recv(deaf, 12)) == b"HTTP/1.1 200"

        reading = asyncio.create_task(sip(deaf, taken))
        await nobody_is_connected(served)
        reading.cancel()

    # Nor does anything of it go on here.
    async with asyncio.timeout(10):
        while served.server.server_state.tasks:
            await asyncio.sleep(0.01)


async def sip(deaf: socket.socket, taken: int) -> None:
    while taken:
        await asyncio.get_running_loop().sock_recv(deaf, taken)
        await asyncio.sleep(SLOW_S / 20)


async def test_a_slow_reader_who_goes_on_gets_the_whole(served, large):
    reader, writer = await called(served)
    writer.write(head(f"GET {large} HTTP/1.1", "Connection: close"))
    began, came = time.monotonic(), 0
    async with asyncio.timeout(30):
        while part := await reader.read(200_000):
            came += len(part)
            await asyncio.sleep(SLOW_S / 20)

    assert came > 12_000_000
    assert time.monotonic() - began > SLOW_S
    writer.close()
