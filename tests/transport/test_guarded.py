"""The pool for addresses that others chose goes nowhere else than where its policy looked."""

import asyncio
import socket
import ssl
import threading
from ipaddress import ip_network
from typing import Any

import httpx
import pytest
from ssrfguard import BlockedAddressError, BlockedURLError, Policy

from app.transport import GuardedTransport, guarded
from tests.clients.tls import issue
from tests.transport.raw import BODY, WHOLE, answering, raw_server

# 127.0.0.1 stands for a public address.
LOCAL = Policy(allowed_networks=(ip_network("127.0.0.0/8"),), allowed_ports=frozenset(range(1, 65536)))


def leads_to(*addresses: str) -> Any:
    def resolve(_: str, port: int, *__: object, **___: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return resolve


def client(resolver: Any = None, policy: Policy = LOCAL, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=GuardedTransport(policy, resolver=resolver, **options), timeout=60)


async def test_what_is_allowed_is_called_and_its_connection_kept():
    async with raw_server(answering(WHOLE)) as server, client(leads_to("127.0.0.1")) as http:
        answers = [await http.post(f"http://caller.example:{server.port}/") for _ in range(3)]

    assert [answer.content for answer in answers] == [BODY] * 3
    assert server.connections == 1
    assert f"\r\nHost: caller.example:{server.port}\r\n".encode() in server.heads[0]


@pytest.mark.parametrize(
    "host",
    ["10.0.0.1", "169.254.169.254", "[::1]", "[fd00::1]", "[::ffff:10.0.0.1]", "[64:ff9b::a00:1]", "2130706433", "0"],
)
async def test_an_address_inside_is_refused_however_it_is_written(host):
    async with client() as http:
        with pytest.raises(BlockedURLError):
            await http.post(f"http://{host}:8080/")


async def test_a_name_that_leads_outside_and_inside_is_refused_whole():
    async with raw_server(answering(WHOLE)) as server, client(leads_to("127.0.0.1", "10.0.0.1")) as http:
        with pytest.raises(BlockedAddressError):
            await http.post(f"http://caller.example:{server.port}/")

    assert server.connections == 0


async def test_a_connection_that_was_led_elsewhere_is_not_written_to(monkeypatch):
    async with raw_server(answering(WHOLE)) as server, client(leads_to("127.0.0.2")) as http:

        async def elsewhere(_: object) -> socket.socket:
            return socket.create_connection(("127.0.0.1", server.port))

        monkeypatch.setattr(guarded, "first_of", elsewhere)

        with pytest.raises(BlockedAddressError):
            await http.post(f"http://caller.example:{server.port}/")
        await server.closed.wait()

    assert server.heads == []


async def test_each_request_is_judged_also_on_an_open_connection():
    async with raw_server(answering(WHOLE)) as server, client() as http:
        await http.post(server.url)
        with pytest.raises(BlockedURLError):
            await http.post(server.url.replace("//", "//user:secret@"))

    assert len(server.heads) == 1


async def test_the_next_address_is_tried_but_only_so_many():
    dead, port_of = "127.0.0.2", "http://caller.example:{}/"
    async with raw_server(answering(WHOLE)) as server:
        async with client(leads_to(dead, "127.0.0.1")) as http:
            assert (await http.post(port_of.format(server.port))).status_code == 200
        many = [f"127.0.1.{number}" for number in range(1, LOCAL.max_connection_attempts + 1)]
        async with client(leads_to(*many, "127.0.0.1")) as http:
            with pytest.raises(httpx.ConnectError):
                await http.post(port_of.format(server.port))

    assert server.connections == 1


async def test_tls_asks_for_the_name_and_not_for_the_address(tmp_path):
    made = issue(tmp_path, "caller.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server, made.key)
    trusting = ssl.create_default_context(cafile=made.authority)
    async with (
        raw_server(answering(WHOLE), tls=context) as server,
        client(leads_to("127.0.0.1"), ssl_context=trusting) as http,
    ):
        assert (await http.post(f"https://caller.example:{server.port}/")).content == BODY
        with pytest.raises(httpx.ConnectError):
            await http.post(f"https://other.example:{server.port}/", content=b"secret")

    assert server.bodies == [b""]


async def test_a_look_up_that_hangs_holds_up_nobody_else():
    found = threading.Event()

    def resolve(host: str, port: int, *_: object, **__: object) -> Any:
        if host == "slow.example":
            found.wait(60)
        return leads_to("127.0.0.1")(host, port)

    async with raw_server(answering(WHOLE)) as server, client(resolve) as http:
        slow = asyncio.create_task(http.post(f"http://slow.example:{server.port}/"))
        assert (await http.post(f"http://quick.example:{server.port}/")).status_code == 200
        assert not slow.done()
        found.set()
        assert (await slow).status_code == 200


async def test_a_name_that_leads_nowhere_is_unreachable_and_not_refused():
    def resolve(*_: object, **__: object) -> Any:
        raise socket.gaierror

    async with client(resolve) as http:
        with pytest.raises(httpx.ConnectError):
            await http.post("http://caller.example:8080/")
