"""The simulator's own way to post webhooks."""

import asyncio

import httpx
import pytest

from app.simulator.transport import KeepAliveTransport

REQUEST = b"POST /hook?x=1 HTTP/1.1\r\n"


class Target:
    """A server that answers each request with the next of its answers, and closes after an empty one."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.heard: list[bytes] = []
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self.answers:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heard.append(head + await reader.readexactly(5))
                answer = self.answers.pop(0)
                writer.write(answer)
                await writer.drain()
                if b"closing" in answer or not answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
def target() -> Target:
    return Target()


async def post(target: Target, answers: list[bytes]) -> list[httpx.Response]:
    target.answers = answers[:]
    server = await asyncio.start_server(target, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?x=1"
    transport = KeepAliveTransport()
    found = []
    try:
        for _ in answers:
            request = httpx.Request("POST", url, content=b"hello")
            found.append(await transport.handle_async_request(request))
        return found
    finally:
        await transport.aclose()
        server.close()


async def test_connection_is_used_again(target: Target):
    answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 204 No Content\r\n\r\n"]

    found = await post(target, answers)

    assert [one.status_code for one in found] == [200, 204]
    assert found[0].content == b"ok"
    assert target.connections == 1
    assert all(one.startswith(REQUEST) and one.endswith(b"\r\n\r\nhello") for one in target.heard)


async def test_chunks_are_joined(target: Target):
    found = await post(
        target, [b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"]
    )

    assert (found[0].status_code, found[0].content) == (201, b"abcde")


async def test_answer_without_a_length_ends_with_the_connection(target: Target):
    found = await post(target, [b"HTTP/1.1 500 Oops\r\n\r\nclosing", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])

    assert [(one.status_code, one.content) for one in found] == [(500, b"closing"), (200, b"")]
    assert target.connections == 2


async def test_coding_of_an_answer_is_not_looked_at(target: Target):
    found = await post(target, [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"])

    assert found[0].content == b"abc"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"closing HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nclosing",
        b"HTTP/1.1 x closing\r\n\r\n",
    ],
)
async def test_broken_answer_is_an_error(target: Target, answer: bytes):
    with pytest.raises(httpx.RemoteProtocolError):
        await post(target, [answer])


async def test_target_that_is_not_there_is_an_error():
    transport = KeepAliveTransport()

    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await transport.handle_async_request(httpx.Request("POST", "http://127.0.0.1:9/", content=b"hello"))
