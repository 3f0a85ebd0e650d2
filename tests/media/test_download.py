"""Fetching from servers that mean no good, over real sockets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from app.http import download_transport, new_client
from app.media.download import FEW, Limits, Unfetched, download
from tests.listening import deafen
from tests.ports import free_port

Serve = Callable[[asyncio.StreamWriter], Awaitable[None]]
SMALL = Limits(size=10_000)
HASTY = replace(SMALL, whole_s=0.3, silence_s=0.2, grace_s=0.1, bytes_per_s=1000)


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[str]:
    """The address of a server that answers every request as *serve* says."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await serve(writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/file.mp4"
    finally:
        await deafen(server)


def says(head: str, body: bytes = b"") -> Serve:
    async def serve(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {head}\r\nConnection: close\r\n\r\n".encode() + body)

    return serve


async def fetched(url: str, limits: Limits = SMALL, *, allow_private: bool = True) -> bytes:
    async with (
        new_client(20, transport=download_transport(allow_private=allow_private)) as http,
        download(http, url, limits) as coming,
    ):
        return b"".join([part async for part in coming.parts()])


async def refusal(serve: Serve, limits: Limits = SMALL) -> Unfetched:
    async with serving(serve) as url:
        with pytest.raises(Unfetched) as refused:
            await fetched(url, limits)
        return refused.value


async def test_a_whole_file_comes_whole():
    async with serving(says("200 OK\r\nContent-Length: 5", b"video")) as url:
        assert await fetched(url) == b"video"


async def test_a_file_of_unknown_length_comes_whole():
    async with serving(says("200 OK\r\nTransfer-Encoding: chunked", b"5\r\nvideo\r\n0\r\n\r\n")) as url:
        assert await fetched(url) == b"video"


async def test_five_gigabytes_are_refused_before_they_come():
    refused = await refusal(says("200 OK\r\nContent-Length: 5000000000", b"x"), Limits())

    assert (refused.code, refused.most_tries) == ("too_large", 1)


async def test_a_file_without_end_is_cut():
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 4096)
            await writer.drain()

    refused = await refusal(endless)

    assert (refused.code, refused.most_tries) == ("too_large", 1)


@pytest.mark.parametrize(
    ("serve", "code", "most_tries"),
    [
        (says("200 OK\r\nContent-Length: 0"), "empty", None),
        (says("200 OK"), "empty", None),
        (says("404 Not Found\r\nContent-Length: 0"), "gone", FEW),
        (says("410 Gone\r\nContent-Length: 0"), "gone", FEW),
        (says("503 Busy\r\nContent-Length: 0"), "not_served", None),
        (says("206 Partial\r\nContent-Length: 1", b"x"), "not_served", None),
        (says("200 OK\r\nContent-Length: 100", b"half"), "cut_off", None),
        (says("200 OK\r\nTransfer-Encoding: chunked", b"5\r\nvideo\r\n"), "cut_off", None),
        (says("200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1", b"x"), "encoded", None),
        (says("302 Found\r\nLocation: ftp://x.example/\r\nContent-Length: 0"), "address_refused", FEW),
        (says("302 Found\r\nLocation: /file.mp4\r\nContent-Length: 0"), "too_many_redirects", FEW),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_what_is_no_whole_file_is_told_apart(serve, code, most_tries):
    refused = await refusal(serve)

    assert (refused.code, refused.most_tries) == (code, most_tries)


async def trickle(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def trickled_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    await trickle(writer)


async def silence(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\nx")
    await writer.drain()
    await asyncio.sleep(5)


@pytest.mark.parametrize("serve", [trickle, trickled_head, silence])
async def test_a_server_that_trickles_is_left(serve):
    refused = await refusal(serve, HASTY)

    assert (refused.code, refused.most_tries) == ("too_slow", None)


async def test_nobody_there():
    with pytest.raises(Unfetched) as refused:
        await fetched(f"http://127.0.0.1:{free_port()}/file.mp4")

    assert refused.value.code == "unreachable"


async def test_a_redirect_is_followed():
    async with AsyncExitStack() as stack:
        there = await stack.enter_async_context(serving(says("200 OK\r\nContent-Length: 5", b"video")))
        here = await stack.enter_async_context(serving(says(f"302 Found\r\nLocation: {there}\r\nContent-Length: 0")))

        assert await fetched(here) == b"video"


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest/meta-data/", "http://0.0.0.0/", "http://[fe80::1]/"])
async def test_a_redirect_to_where_we_never_ask_is_refused(target):
    refused = await refusal(says(f"302 Found\r\nLocation: {target}\r\nContent-Length: 0"))

    assert (refused.code, refused.most_tries) == ("address_refused", FEW)


async def test_a_private_address_is_refused_and_never_told():
    async with serving(says("200 OK\r\nContent-Length: 5", b"video")) as url:
        with pytest.raises(Unfetched) as refused:
            await fetched(url, allow_private=False)

    assert refused.value.code == "address_refused"
    assert "127.0.0.1" not in str(refused.value)
