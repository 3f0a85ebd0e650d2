"""Callsheet on a socket behind a proxy that can cut, and both clients for it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn

from app.client import AsyncClient, Client, Job, exchange
from tests import factories as make
from tests.faults.proxy import Proxy
from tests.world import World


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost connections are made anew at once."""
    monkeypatch.setattr(exchange, "FIRST_S", 0.005)


@dataclass
class Stage:
    """A world, the way to it that can be cut, and a client, whose calls are all awaited here."""

    world: World
    proxy: Proxy
    client: Client | AsyncClient

    async def ask(self, name: str, /, *args: Any, **options: Any) -> Any:
        """The answer of a call, or all that it iterates over."""
        call = getattr(self.client, name)
        if isinstance(self.client, Client):
            if name in {"list", "events"}:
                return await asyncio.to_thread(lambda: [*call(*args, **options)])
            return await asyncio.to_thread(call, *args, **options)
        if name in {"list", "events"}:
            return [each async for each in call(*args, **options)]
        return await call(*args, **options)

    async def order(self, prompt: str = "a mecha lands", **options: Any) -> Job:
        job: Job = await self.ask("create", make.O3, {"prompt": prompt, "duration": "5"}, **options)
        return job

    async def finish(self) -> None:
        """Let fal make what was ordered."""
        await self.world.dispatch()
        await self.world.at_fal(60)


def key_of(world: World) -> str:
    return str(world.api.headers["authorization"]).removeprefix("Bearer ")


@pytest.fixture
async def proxy(world: World) -> AsyncIterator[Proxy]:
    # The world runs the app already; only its door is opened here.
    server = uvicorn.Server(uvicorn.Config(world.app, port=0, log_config=None, ws="none", lifespan="off"))
    serving = asyncio.create_task(server._serve())  # serve() would take the signals
    while not server.started:
        assert not serving.done(), serving
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with Proxy(("127.0.0.1", port)) as found:
        yield found
    server.should_exit = True
    await serving


@pytest.fixture(params=["sync", "async"])
async def stage(request: pytest.FixtureRequest, world: World, proxy: Proxy) -> AsyncIterator[Stage]:
    url, key = f"http://127.0.0.1:{proxy.port}", key_of(world)
    if request.param == "sync":
        with Client(url, key, http=httpx.Client(trust_env=False)) as client:
            yield Stage(world, proxy, client)
    else:
        async with AsyncClient(url, key, http=httpx.AsyncClient(trust_env=False)) as client:
            yield Stage(world, proxy, client)
