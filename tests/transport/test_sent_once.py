"""Under every fault of a connection a paid submit is written at most once, and never called unsent if it was."""

import asyncio
import socket
import threading

import httpx
import pytest

from app.fal.client import NOTHING_SENT, FalClient
from app.fal.messages import Lost, Refused
from app.http import new_client
from tests.ports import free_port
from tests.transport.raw import WHOLE, RawServer, answering, raw_server, reset

# More than socket buffers take, so that a server can end it in the middle.
LARGE = "x" * 8_000_000


async def submit(server: RawServer, prompt: str = "a mecha", *, timeout_s: float = 60.0, warm: bool = False):
    """What a submit to *server* becomes, with *warm* over a connection that was used before."""
    async with new_client(timeout_s) as http:
        if warm:
            assert (await http.post(server.url, content=b"{}")).status_code == 200
        fal = FalClient(http, queue_url=f"http://127.0.0.1:{server.port}", key="k", timeout_s=timeout_s)
        return await fal.submit("model", {"prompt": prompt}, webhook_url=None)


async def close_unread(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    return False


async def reset_after_head(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    await server.read_head(reader)
    reset(writer)
    return False


async def close_mid_body(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    await server.read_head(reader)
    await reader.readexactly(10)
    return False


async def reset_before_answer(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    await server.read(reader)
    reset(writer)
    return False


async def silence(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    await server.read(reader)
    await reader.read()
    return False


FAULTS = {
    "reset_after_head": reset_after_head,
    "close_mid_body": close_mid_body,
    "close_before_answer": answering(then_close=True),
    "reset_before_answer": reset_before_answer,
    "close_mid_head": answering(WHOLE[:20], then_close=True),
    "close_mid_answer": answering(WHOLE[:-5], then_close=True),
    "no_http": answering(b"SMTP ready\r\n\r\n", then_close=True),
    "no_http_length": answering(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", then_close=True),
    "two_lengths": answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}"),
    "switching": answering(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nhello"),
    "broken_chunk": answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "broken_coding": answering(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"),
}


@pytest.mark.parametrize("warm", [False, True], ids=["new", "kept_alive"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_submit_that_breaks_off_is_lost_and_was_written_once(fault, warm):
    async with raw_server(*[answering(WHOLE)] * warm, FAULTS[fault]) as server:
        answer = await submit(server, LARGE if fault == "close_mid_body" else "a mecha", warm=warm)

    assert isinstance(answer, Lost), answer
    assert len(server.heads) == 1 + warm
    assert server.connections == 1


async def test_a_kept_connection_closed_as_the_submit_leaves_is_lost_not_sent_again():
    """The close is on its way while our socket still looks fine; nobody knows what the other side read."""
    async with raw_server(answering(WHOLE), reset_before_answer) as server, new_client(60) as http:
        await http.post(server.url)

        with pytest.raises(httpx.TransportError) as failed:
            await http.post(server.url, content=b"paid")

    assert not isinstance(failed.value, NOTHING_SENT)
    assert (server.connections, server.bodies) == (1, [b"", b"paid"])


async def test_a_kept_connection_found_closed_is_not_written_to():
    async with raw_server(answering(WHOLE, then_close=True), answering(WHOLE)) as server, new_client(60) as http:
        await http.post(server.url, content=b"first")
        await server.closed.wait()

        answer = await http.post(server.url, content=b"second")

    assert answer.status_code == 200
    assert (server.connections, server.bodies) == (2, [b"first", b"second"])


async def test_a_close_that_our_loop_has_not_seen_yet_is_found_before_writing():
    """fal's servers close idle connections while a busy worker's loop is elsewhere."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        served = []

        def serve() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    served.append(connection.recv(65536))
                    connection.sendall(WHOLE)
                    if len(served) == 1:
                        may_close.wait(60)
                closed.set()

        may_close, closed = threading.Event(), threading.Event()
        server = threading.Thread(target=serve)
        server.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        async with new_client(60) as http:
            await http.post(url, content=b"first")
            may_close.set()
            # Blocks the loop on purpose: the end of the connection comes in while nobody looks.
            closed.wait(60)
            answer = await http.post(url, content=b"second")
        server.join(60)

    assert answer.status_code == 200
    assert [request.rpartition(b"\r\n")[2] for request in served] == [b"first", b"second"]


async def test_what_comes_uncalled_for_spoils_the_connection_not_the_next_answer():
    smuggled = WHOLE.replace(b"r1", b"r0")
    async with raw_server(answering(WHOLE + smuggled), answering(WHOLE)) as server, new_client(60) as http:
        await http.post(server.url)

        second = await http.post(server.url)

    assert second.json() == {"request_id": "r1"}
    assert server.connections == 2


async def test_a_connection_closed_before_anything_was_read_is_lost():
    async with raw_server(close_unread) as server:
        answer = await submit(server, LARGE)

    # Only a connection that never was proves that nothing left us.
    assert isinstance(answer, Lost)
    assert server.heads == []


async def test_a_timeout_after_connecting_is_lost():
    async with raw_server(answering(WHOLE), silence) as server, new_client(60) as http:
        await http.post(server.url)
        # Only what never comes has little time.
        http.timeout = httpx.Timeout(60, read=0.05)
        fal = FalClient(http, queue_url=f"http://127.0.0.1:{server.port}", key="k", timeout_s=60)

        assert await fal.submit("model", {}, webhook_url=None) == Lost("ReadTimeout")
        await server.closed.wait()

    assert len(server.heads) == 2


async def test_an_answer_that_trickles_is_lost_when_its_time_is_up():
    trickle = answering(*[bytes([byte]) for byte in WHOLE[:40]])

    async def slowly(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        await trickle(server, reader, writer)
        return await silence(server, reader, writer)

    async with raw_server(answering(WHOLE), slowly) as server, new_client(60) as http:
        # Its time doesn't go by while it connects.
        await http.post(server.url)
        fal = FalClient(http, queue_url=f"http://127.0.0.1:{server.port}", key="k", timeout_s=0.5)

        assert await fal.submit("model", {}, webhook_url=None) == Lost("TimeoutError")
        await server.closed.wait()

    assert len(server.heads) == 2


async def test_a_submit_that_had_no_turn_before_its_time_was_up_was_not_sent():
    async with raw_server(silence) as server, new_client(60, at_once=1) as http:
        held = asyncio.create_task(http.post(server.url, content=b"first"))
        while not server.bodies:
            await asyncio.sleep(0)
        fal = FalClient(http, queue_url=f"http://127.0.0.1:{server.port}", key="k", timeout_s=0.01)

        answer = await fal.submit("model", {}, webhook_url=None)
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)

    assert isinstance(answer, Refused)
    assert len(server.heads) == 1


async def test_a_canceled_submit_leaves_no_connection_to_be_used_again():
    async with raw_server(silence, answering(WHOLE)) as server, new_client(60) as http:
        asking = asyncio.create_task(http.post(server.url, content=b"first"))
        while not server.bodies:
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

        answer = await http.post(server.url, content=b"second")

    assert answer.json() == {"request_id": "r1"}
    assert server.connections == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "nowhere.invalid", "a" * 64 + ".example"])
async def test_without_a_connection_nothing_was_sent(host):
    async with new_client(60) as http:
        fal = FalClient(http, queue_url=f"http://{host}:{free_port()}", key="k")

        answer = await fal.submit("model", {}, webhook_url=None)

    assert isinstance(answer, Refused)
    assert (answer.code, answer.final) == (None, False)


async def test_a_connection_that_is_not_made_in_time_was_not_used():
    with socket.socket() as listener:
        # Nobody accepts, and the queue of those who wait is full.
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(address)
        async with new_client(0.05) as http:
            with pytest.raises(httpx.ConnectTimeout):
                await http.post(f"http://127.0.0.1:{address[1]}/", content=b"paid")
        for each in waiting:
            each.close()


@pytest.mark.parametrize("key", ["a\r\nX-Evil: 1", "a\nb", "a\0b"])
async def test_a_header_that_would_begin_another_is_not_sent(key):
    async with raw_server(answering(WHOLE)) as server, new_client(60) as http:
        fal = FalClient(http, queue_url=f"http://127.0.0.1:{server.port}", key=key)

        assert isinstance(await fal.submit("model", {}, webhook_url=None), Refused)

    assert server.connections == 0
