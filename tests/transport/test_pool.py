"""What httpx gets from the transport: everything its own gave, whatever the other side's spelling."""

import asyncio
import gzip
import ssl

import httpx
import pytest

from app.http import new_client
from app.transport import PooledTransport
from app.transport import dial as dialing
from tests.clients.tls import issue
from tests.transport.raw import BODY, WHOLE, RawServer, answering, raw_server

PACKED = gzip.compress(BODY)
ANSWERS = {
    "length": WHOLE,
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n"
    + BODY[:5]
    + b"\r\nf;a=b\r\n"
    + BODY[5:]
    + b"\r\n0\r\nTrailer: x\r\n\r\n",
    "gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(PACKED), PACKED),
    "hints_first": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + WHOLE,
    "lower_case": WHOLE.replace(b"Content-Length", b"content-length"),
}


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("split", [False, True], ids=["at_once", "byte_by_byte"])
async def test_an_answer_is_read_however_it_is_framed(kind, split):
    raw = ANSWERS[kind]
    parts = [bytes([byte]) for byte in raw] if split else [raw]
    async with raw_server(answering(*parts)) as server, new_client(60) as http:
        answers = [await http.post(server.url) for _ in range(2)]

    assert [(answer.status_code, answer.content) for answer in answers] == [(200, BODY)] * 2
    assert server.connections == 1


@pytest.mark.parametrize(
    ("raw", "content"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n" + BODY, BODY),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", b"{}"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", b"{}"),
    ],
)
async def test_an_answer_may_end_with_its_connection(raw, content):
    async with raw_server(answering(raw, then_close=True)) as server, new_client(60) as http:
        answers = [await http.get(server.url) for _ in range(2)]

    assert [answer.content for answer in answers] == [content, content]
    assert server.connections == 2


async def test_status_reason_and_every_header_arrive():
    raw = b"HTTP/1.1 429 Slow Down\r\nRetry-After: 7\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n"
    async with raw_server(answering(raw)) as server, new_client(60) as http:
        answer = await http.get(server.url)

    assert (answer.status_code, answer.reason_phrase, answer.http_version) == (429, "Slow Down", "HTTP/1.1")
    assert answer.headers["retry-after"] == "7"
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]


async def test_a_request_is_written_as_it_was_spelled():
    async with raw_server(answering(WHOLE)) as server, new_client(60) as http:
        await http.post(
            server.url,
            params={"fal_webhook": "https://a/b?c=1"},
            content="é".encode(),
            headers={"X-Fal-Queue-Priority": "low"},
        )

    head = server.heads[0]
    assert head.startswith(b"POST /queue/model?fal_webhook=https%3A%2F%2Fa%2Fb%3Fc%3D1 HTTP/1.1\r\n")
    assert b"\r\nX-Fal-Queue-Priority: low\r\n" in head
    assert f"\r\nHost: 127.0.0.1:{server.port}\r\n".encode() in head
    assert server.bodies == ["é".encode()]


async def test_no_body_follows_the_answer_to_head():
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    async with raw_server(answering(raw)) as server, new_client(60) as http:
        answers = [await http.head(server.url) for _ in range(2)]

    assert [answer.content for answer in answers] == [b"", b""]


async def test_proxies_of_the_environment_are_ignored(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with raw_server(answering(WHOLE)) as server, new_client(60) as http:
        assert (await http.get(server.url)).status_code == 200


async def test_no_more_than_allowed_are_under_way_at_once():
    at_once = most = 0

    async def count(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        nonlocal at_once, most
        await server.read(reader)
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.001)
        at_once -= 1
        writer.write(WHOLE)
        return True

    async with raw_server(count) as server, httpx.AsyncClient(transport=PooledTransport(at_once=8), timeout=60) as http:
        answers = await asyncio.gather(*(http.post(server.url) for _ in range(100)))

    assert {answer.status_code for answer in answers} == {200}
    assert (most, server.connections) == (8, 8)


async def test_waiting_for_a_place_has_its_own_timeout():
    async def wait(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await server.read(reader)
        await may_answer.wait()
        writer.write(WHOLE)
        return True

    may_answer = asyncio.Event()
    timeout = httpx.Timeout(60, pool=0.02)
    async with (
        raw_server(wait) as server,
        httpx.AsyncClient(transport=PooledTransport(at_once=1), timeout=timeout) as http,
    ):
        first = asyncio.create_task(http.post(server.url))
        while not server.bodies:
            await asyncio.sleep(0)
        with pytest.raises(httpx.PoolTimeout):
            await http.post(server.url)
        may_answer.set()
        answers = await first, await http.post(server.url)

    assert [answer.status_code for answer in answers] == [200, 200]
    assert len(server.bodies) == 2


async def test_an_idle_connection_is_not_used_for_long():
    async with (
        raw_server(answering(WHOLE)) as server,
        httpx.AsyncClient(transport=PooledTransport(kept_s=0), timeout=60) as http,
    ):
        for _ in range(3):
            await http.post(server.url)

    assert server.connections == 3


async def test_an_idle_connection_is_closed_also_where_nobody_asks_again():
    async with (
        raw_server(answering(WHOLE)) as server,
        httpx.AsyncClient(transport=PooledTransport(kept_s=0.01), timeout=60) as http,
    ):
        await http.post(server.url)
        await asyncio.wait_for(server.closed.wait(), 60)


async def test_an_answer_is_there_before_its_body_and_what_is_not_wanted_of_it_is_left():
    async def begin(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await server.read(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nabc")
        await reader.read()
        return False

    transport = PooledTransport(at_once=1)
    async with (
        raw_server(begin, answering(WHOLE)) as server,
        httpx.AsyncClient(transport=transport, timeout=60) as http,
    ):
        async with http.stream("POST", server.url) as answer:
            assert await anext(answer.aiter_raw()) == b"abc"
        await server.closed.wait()
        whole = await http.post(server.url)

    assert (whole.content, server.connections) == (BODY, 2)


@pytest.mark.parametrize(
    "begin", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"]
)
async def test_headers_that_never_end_are_given_up(begin):
    async def flood(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await server.read(reader)
        writer.write(begin)
        for _ in range(100):
            writer.write(b"x: %s\r\n" % (b"x" * 100_000))
            await writer.drain()
        return False

    async with raw_server(flood) as server, new_client(60) as http:
        with pytest.raises(httpx.ReadError):
            await http.get(server.url)


async def test_an_answer_of_more_headers_than_anybody_reads_is_refused():
    raw = b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 300 + b"Content-Length: 0\r\n\r\n"
    async with raw_server(answering(raw)) as server, new_client(60) as http:
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get(server.url)


async def test_no_more_connections_are_idle_than_may_be_busy_wherever_they_lead():
    async with (
        raw_server(answering(WHOLE)) as first,
        raw_server(answering(WHOLE)) as second,
        httpx.AsyncClient(transport=PooledTransport(at_once=1), timeout=60) as http,
    ):
        for server in (first, second, first, second):
            await http.get(server.url)

    assert (first.connections, second.connections) == (1, 2)


async def test_whoever_no_authority_vouches_for_is_not_spoken_to(tmp_path):
    made = issue(tmp_path, "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server, made.key)
    trusting = ssl.create_default_context(cafile=made.authority)
    async with raw_server(answering(WHOLE), tls=context) as server:
        async with new_client(60) as http:
            with pytest.raises(httpx.ConnectError):
                await http.post(f"https://localhost:{server.port}/", content=b"paid")
        async with httpx.AsyncClient(transport=PooledTransport(ssl_context=trusting), timeout=60) as http:
            with pytest.raises(httpx.ConnectError):
                await http.post(f"https://127.0.0.1:{server.port}/", content=b"paid")
            answers = [await http.post(f"https://localhost:{server.port}/", content=b"paid") for _ in range(2)]

    assert [answer.content for answer in answers] == [BODY, BODY]
    assert server.bodies == [b"paid", b"paid"]
    assert server.connections == 1


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http:///x"])
async def test_only_http_addresses_are_taken(url):
    async with new_client(60) as http:
        with pytest.raises(httpx.UnsupportedProtocol):
            await http.get(url)


async def test_a_body_that_is_made_as_it_goes_is_refused():
    async def stream():
        yield b"x"

    async with raw_server(answering(WHOLE)) as server, new_client(60) as http:
        with pytest.raises(httpx.LocalProtocolError):
            await http.post(server.url, content=stream())

    assert server.connections == 0


async def test_an_address_that_does_not_answer_holds_up_no_other(monkeypatch):
    """Both families are tried, as on a machine whose IPv6 leads nowhere."""
    asked = []

    async def connect(family: int, kind: int, protocol: int, address: tuple[str, int]) -> str:
        asked.append(address[0])
        if address[0] in {"::1", "::2"}:
            await asyncio.Event().wait()
        if address[0] == "10.0.0.1":
            raise ConnectionRefusedError
        return address[0]

    async def resolve(*_: object, **__: object) -> list[object]:
        return [
            (10, 1, 6, "", ("::1", 80)),
            (10, 1, 6, "", ("::2", 80)),
            (2, 1, 6, "", ("10.0.0.1", 80)),
            (2, 1, 6, "", ("10.0.0.2", 80)),
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    monkeypatch.setattr(dialing, "_connect", connect)
    monkeypatch.setattr(dialing, "HEAD_START_S", 0.001)

    found: object = await dialing.dial("example", 80)

    assert found == "10.0.0.2"
    assert asked == ["::1", "10.0.0.1", "::2", "10.0.0.2"]
