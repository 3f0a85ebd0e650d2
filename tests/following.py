"""Callsheet on a socket of its own, and a reader of its event streams."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import FastAPI

from app.cli.serving import Server, config
from app.main import create_app
from app.settings import Settings
from tests import signing


@dataclass(frozen=True)
class Event:
    """One event of a stream."""

    kind: str
    id: str | None
    data: Any = field(hash=False)

    @property
    def number(self) -> int | None:
        number: int | None = self.data.get("number")
        return number


@dataclass
class Service:
    """Where it is, and what it is."""

    url: str
    app: FastAPI
    server: Server

    async def holds_no_connection(self) -> None:
        """Wait until every connection is back: the hub takes one for a moment now and then."""
        async with asyncio.timeout(60):
            while self.app.state.db.engine.pool.checkedout():
                await asyncio.sleep(0.005)

    def client(self, key: str) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=60, trust_env=False)


@asynccontextmanager
async def service(database_url: str, *, stop_s: int = 2, **given: Any) -> AsyncIterator[Service]:
    """Callsheet over *database_url*; it looks for news often, unless *given* says otherwise, and stops in *stop_s*."""
    fal = httpx.MockTransport(lambda _: httpx.Response(200, json=signing.JWKS))
    settings = Settings.read(
        **{"database_url": database_url, "fal_key": "test", "poll_s": 0.02, "_env_file": None, **given}
    )
    app = create_app(settings, fal_transport=fal)
    server = Server(config(app, "127.0.0.1", 0, stop_s=stop_s, slow_s=settings.slow_request_s))
    serving = asyncio.create_task(server._serve())  # serve() would take the signals
    while not server.started:
        assert not serving.done(), serving
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Service(f"http://127.0.0.1:{port}", app, server)
    finally:
        server.should_exit = True
        await serving


async def read(answer: httpx.Response) -> AsyncGenerator[Event, None]:
    """The events of *answer*, as they come."""
    fields: dict[str, str] = {}
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if line and name:
            fields[name] = value
        elif fields.get("data"):
            yield Event(fields.get("event", "message"), fields.get("id"), json.loads(fields["data"]))
            fields = {}
        else:
            fields = {}


@asynccontextmanager
async def followed(
    client: httpx.AsyncClient, path: str, *, last: str | None = None, **params: Any
) -> AsyncIterator[AsyncIterator[Event]]:
    """The stream at *path*, open while the block runs."""
    headers = {"Last-Event-ID": last} if last is not None else {}
    async with client.stream("GET", path, headers=headers, params=params, timeout=20) as answer:
        if answer.status_code != 200:
            await answer.aread()
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/event-stream")
        async with aclosing(read(answer)) as events:
            yield events


async def whole(client: httpx.AsyncClient, path: str, *, last: str | None = None, **params: Any) -> list[Event]:
    """All of a stream that ends."""
    async with asyncio.timeout(20), followed(client, path, last=last, **params) as events:
        return [event async for event in events]


async def some(events: AsyncIterator[Event], count: int) -> list[Event]:
    """The next *count* events."""
    async with asyncio.timeout(20):
        return [await anext(events) for _ in range(count)]
