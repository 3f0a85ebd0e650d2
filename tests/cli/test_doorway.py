"""What the doors answer to clients of a server: as the routes do, in order, and whatever a client does meanwhile."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest

from app.cli import doorway
from tests import factories as make
from tests import following
from tests.jobs.test_doors import CHANGING

NOBODYS = "0197a2b8-6c4e-7d31-9f00-3a5f0c1d2e4b"
ORDER = json.dumps({"model": make.O3, "input": {"prompt": "a mecha", "duration": "5"}}).encode()


class Answer(NamedTuple):
    """One answer, as it came."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """A connection, and the key of whoever holds it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str) -> None:
        self._reader = reader
        self._writer = writer
        self._key = key

    def request(self, method: str, path: str, body: bytes = b"", *more: str, http: str = "1.1") -> tuple[bytes, bytes]:
        """The head and the body of a request."""
        of_body = ("Content-Type: application/json", f"Content-Length: {len(body)}") if body else ()
        lines = (f"{method} {path} HTTP/{http}", "Host: x", f"Authorization: Bearer {self._key}", *of_body, *more)
        return "".join(f"{line}\r\n" for line in (*lines, "")).encode(), body

    async def send(self, *parts: bytes) -> None:
        """Send *parts*, each by itself."""
        for number, part in enumerate(parts):
            if number:
                # Long enough for what came before to be read; if it isn't, nothing fails, but less is shown.
                await asyncio.sleep(0.02)
            self._writer.write(part)
            await self._writer.drain()

    async def answer(self) -> Answer:
        """The next answer."""
        async with asyncio.timeout(30):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            return Answer(
                int(first.split()[1]), headers, await self._reader.readexactly(int(headers["content-length"]))
            )

    async def rest(self) -> bytes:
        """All that comes until the server closes."""
        async with asyncio.timeout(30):
            return await self._reader.read()

    def close(self) -> None:
        self._writer.close()


@pytest.fixture
async def served(database_url: str) -> AsyncIterator[following.Service]:
    async with following.service(database_url) as service:
        yield service


@pytest.fixture
def by_doors(served: following.Service, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The status of each answer that the doors gave."""
    doors: Any = served.app.doors  # type: ignore[attr-defined]
    asked, found = doors.answer, []

    async def answer(*given: Any) -> Any:
        answer = await asked(*given)
        if answer is not None:
            found.append(answer.status)
        return answer

    monkeypatch.setattr(doors, "answer", answer)
    return found


@pytest.fixture
async def client(served: following.Service) -> AsyncIterator[Client]:
    _, key = await make.make_key(served.app.state.db)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(served.url.rpartition(":")[2]))
    client = Client(reader, writer, key)
    yield client
    client.close()


def alike(answer: Answer) -> tuple[int, dict[str, str], Any]:
    """An answer without what no two have in common."""
    body = json.loads(answer.body)
    for name in ("id", "request_id", "created_at"):
        if name in body:
            body[name] = "…"
    changing = CHANGING | {"date"}
    return answer.status, {k: "…" if k in changing else v for k, v in answer.headers.items()}, body


@pytest.mark.parametrize(
    ("body", "status"),
    [(ORDER, 202), (b"{", 422), (ORDER.replace(b"4k", b"5k"), 404), (b"[" * 100_000, 422)],
    ids=["good", "no JSON", "another model", "deep"],
)
async def test_an_order_in_one_piece_is_answered_as_one_in_many(client, by_doors, monkeypatch, body, status):
    head, body = client.request("POST", "/v1/jobs", body)
    third = -(-len(body) // 3)
    pieces = [body[at : at + third] for at in range(0, len(body), third)]

    await client.send(head + body)
    whole = await client.answer()
    await client.send(head, *pieces)
    in_many = await client.answer()
    monkeypatch.setattr(doorway, "SOON_S", 0.0)
    await client.send(head, *pieces)
    by_route = await client.answer()

    assert whole.status == status
    assert by_doors == ([202, 202] if status == 202 else [])
    assert alike(whole) == alike(in_many) == alike(by_route)
    assert next(iter(whole.headers)) == "date"


async def test_a_job_is_shown_with_all_that_every_answer_says(client, by_doors):
    head, body = client.request("POST", "/v1/jobs", ORDER)
    await client.send(head + body)
    ordered = await client.answer()

    await client.send(*client.request("GET", ordered.headers["location"]))
    by_door = await client.answer()
    await client.send(*client.request("GET", ordered.headers["location"], b"", "Origin: https://page.example"))
    by_route = await client.answer()

    assert by_doors == [202, 200]
    assert by_door.body == by_route.body == ordered.body
    assert alike(by_door) == alike(by_route)
    assert by_door.headers["x-request-id"] != by_route.headers["x-request-id"]


async def test_who_asks_before_they_were_answered_is_answered_in_order(client, by_doors):
    """Whichever of them the doors answer, and however the last of them comes."""
    order, alive = client.request("POST", "/v1/jobs", ORDER), client.request("GET", "/livez")
    missing = client.request("GET", f"/v1/jobs/{NOBODYS}")
    models = client.request("GET", "/v1/models")
    head, body = order

    await client.send(b"".join((*order, *missing, *models, *order, *order, *missing, head)), body)
    statuses = [(await client.answer()).status for _ in range(7)]
    await client.send(*alive)

    assert statuses == [202, 404, 200, 202, 202, 404, 202]
    assert by_doors[:3] == [202, 202, 202]


@pytest.mark.parametrize("asks", [{"more": ("Connection: close",)}, {"http": "1.0"}], ids=["close", "HTTP/1.0"])
async def test_who_wants_one_answer_gets_one(client, by_doors, asks):
    more = asks.get("more", ())
    head, body = client.request("POST", "/v1/jobs", ORDER, *more, http=asks.get("http", "1.1"))

    await client.send(head + body)
    answer, rest = await client.answer(), await client.rest()

    assert (answer.status, answer.headers["connection"], rest, by_doors) == (202, "close", b"", [202])


async def test_who_waits_to_be_asked_for_the_body_is_asked(client):
    head, body = client.request("POST", "/v1/jobs", ORDER, "Expect: 100-continue")

    await client.send(head)
    async with asyncio.timeout(30):
        asked = await client._reader.readuntil(b"\r\n\r\n")
    await client.send(body)

    assert asked == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert (await client.answer()).status == 202


def held(
    served: following.Service, gatherer: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[asyncio.Event, asyncio.Event]:
    """What is gathered waits at its *gatherer*: that somebody came there, and that they may go on."""
    come, go_on = asyncio.Event(), asyncio.Event()
    gathered = getattr(served.app.state, gatherer)

    async def slowly(member: Any) -> Any:
        come.set()
        await go_on.wait()
        return await gathered(member)

    monkeypatch.setattr(served.app.state, gatherer, slowly)
    return come, go_on


async def test_an_order_is_taken_once_though_nobody_waits_for_the_answer(served, client, monkeypatch):
    taken, go_on = held(served, "accepting", monkeypatch)
    head, body = client.request("POST", "/v1/jobs", ORDER)
    await client.send(head + body)
    await taken.wait()
    client.close()
    async with asyncio.timeout(30):
        while served.server.server_state.connections:
            await asyncio.sleep(0.01)
        go_on.set()
        while served.server.server_state.tasks:
            await asyncio.sleep(0.01)

    async with served.client(client._key) as http:
        assert len((await http.get("/v1/jobs")).json()["data"]) == 1


async def test_what_is_no_request_ends_the_connection(client):
    head, body = client.request("POST", "/v1/jobs", ORDER)

    await client.send(head + body + b"nonsense\r\n\r\n")
    answers = await client.rest()

    assert answers.count(b"HTTP/1.1 400 Bad Request") == 1
    assert answers.endswith(b"Invalid HTTP request received.")


async def test_an_answer_that_is_being_made_is_sent_before_the_server_stops(served, client, monkeypatch):
    looked, go_on = held(served, "looking", monkeypatch)
    await client.send(*client.request("GET", f"/v1/jobs/{NOBODYS}"))
    await looked.wait()
    served.server.should_exit = True
    async with asyncio.timeout(30):
        while not served.server.servers or served.server.servers[0].is_serving():
            await asyncio.sleep(0.01)
    go_on.set()
    answer = await client.answer()

    assert (answer.status, answer.headers["connection"]) == (404, "close")


async def test_what_is_for_the_routes_alone_waits_for_no_body(client, monkeypatch):
    monkeypatch.setattr(doorway, "SOON_S", 1000.0)
    head, _ = client.request("POST", "/v1/quotes", b"", "Content-Length: 999999999")

    await client.send(head)

    assert (await client.answer()).status == 413
