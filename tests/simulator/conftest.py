"""A simulator in the test's own process, and someone who gets its webhooks."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from app.simulator.app import create_simulator
from app.simulator.config import SimulatorConfig
from app.simulator.requests import Request
from app.simulator.simulator import Simulator

BASE: Final = "http://fal.example"
HOOK: Final = "http://gateway.example/hook"
O3: Final = "fal-ai/kling-video/o3/4k/text-to-video"
AUTH: Final = {"Authorization": "Key kid:ksecret"}
PATIENCE_S: Final = 10.0


@dataclass
class Hook:
    """A webhook target: what it heard, and the codes it answers with (the last one from then on)."""

    codes: list[int] = field(default_factory=lambda: [200])
    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    slow_s: float = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.heard.append(({k.decode(): v.decode() for k, v in scope["headers"]}, body))
        await asyncio.sleep(self.slow_s)
        code = self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]
        await send({"type": "http.response.start", "status": code, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    @property
    def said(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.heard]


@dataclass
class Box:
    """A running simulator, a client of it, and the target of its webhooks."""

    app: FastAPI
    client: httpx.AsyncClient
    hook: Hook

    @property
    def simulator(self) -> Simulator:
        found: Simulator = self.app.state.simulator
        return found

    async def post(
        self,
        order: Any = None,
        *,
        endpoint: str = O3,
        script: dict[str, Any] | None = None,
        hook: str | None = HOOK,
        **headers: str,
    ) -> httpx.Response:
        """The answer to a submit; unless a test is about videos, a tenth of a second of one will do."""
        words = {"video_s": 0.1} | (script or {})
        given = {"X-Simulator-Script": json.dumps(words)} | {k.replace("_", "-"): v for k, v in headers.items()}
        params = {} if hook is None else {"fal_webhook": hook}
        body = {"prompt": "a lighthouse"} if order is None else order
        return await self.client.post(f"/{endpoint}", json=body, params=params, headers=given)

    async def submit(self, order: Any = None, **options: Any) -> str:
        answer = await self.post(order, **options)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["request_id"])

    def request(self, request_id: str) -> Request:
        return self.simulator.queue.requests[request_id]

    async def until(self, request_id: str, reached: Callable[[Request], bool]) -> Request:
        """The request, once *reached* holds for it."""
        request = self.request(request_id)
        async with asyncio.timeout(PATIENCE_S):
            while not reached(request):
                await request.change()
        return request

    async def ended(self, request_id: str) -> Request:
        return await self.until(request_id, lambda request: request.ended)

    async def told(self, request_id: str) -> Request:
        return await self.until(request_id, lambda request: request.told)

    async def status(self, request_id: str, **params: str) -> httpx.Response:
        return await self.client.get(f"/fal-ai/kling-video/requests/{request_id}/status", params=params)

    async def result(self, request_id: str) -> httpx.Response:
        return await self.client.get(f"/fal-ai/kling-video/requests/{request_id}")

    async def cancel(self, request_id: str) -> httpx.Response:
        return await self.client.put(f"/fal-ai/kling-video/requests/{request_id}/cancel")

    async def advance(self, seconds: float) -> None:
        answer = await self.client.put("/simulator/clock", json={"advance_s": seconds})
        assert answer.status_code == 200

    async def settle(self) -> None:
        """Let everything that is due, and needs no more time, happen."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def books(self) -> list[dict[str, Any]]:
        answer = await self.client.get("/simulator/requests")
        found: list[dict[str, Any]] = answer.json()["requests"]
        return found


OpenBox = Callable[..., Awaitable[Box]]


@pytest.fixture
async def open_box() -> AsyncIterator[OpenBox]:
    """Opens simulators that wait and run no longer than asked, and closes them after the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def opened(**settings: Any) -> Box:
            hook = Hook()
            given: dict[str, Any] = {"public_url": BASE, "queue_s": 0, "run_s": 0} | settings
            config = SimulatorConfig(**given)
            app = create_simulator(config, webhook_transport=httpx.ASGITransport(hook))
            await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx.ASGITransport(app)
            client = httpx.AsyncClient(transport=transport, base_url=BASE, headers=AUTH)
            await stack.enter_async_context(client)
            return Box(app, client, hook)

        yield opened


@pytest.fixture
async def box(open_box: OpenBox) -> Box:
    """A simulator whose requests finish at once."""
    return await open_box()


@pytest.fixture
async def slow_box(open_box: OpenBox) -> Box:
    """A simulator whose clock stands still: requests queue for 10 s, then run for 10 s, when it's moved on."""
    box = await open_box(queue_s=10, run_s=10, concurrency=2)
    box.simulator.clock.set(stopped=True)
    return box


@pytest.fixture
async def served() -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Puts apps on sockets of their own; gives their addresses."""
    async with contextlib.AsyncExitStack() as stack:

        async def serve(make: Callable[[str], Any]) -> str:
            listening = socket.create_server(("127.0.0.1", 0))
            stack.callback(listening.close)
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            server = uvicorn.Server(uvicorn.Config(make(url), log_level="warning", lifespan="auto"))
            task = asyncio.create_task(server.serve(sockets=[listening]))
            while not server.started:
                await asyncio.sleep(0.005)

            async def stop() -> None:
                server.should_exit = True
                await task

            stack.push_async_callback(stop)
            return url

        yield serve
