"""The simulator as an app: one port in place of all of fal's hosts."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import httpx
from fastapi import FastAPI
from starlette.requests import Request as Call
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.simulator.config import SimulatorConfig
from app.simulator.doors import door
from app.simulator.routes import admin, files, page, platform, queue, rest, run
from app.simulator.simulator import Simulator

Service = Callable[[Simulator, Call, str], Awaitable[Response]]
SERVICES: Final[Mapping[str, Service]] = {
    "queue": queue.serve,
    "run": run.serve,
    "rest": rest.serve,
    "files": files.serve,
    "v1": platform.serve,
}


class Doors:
    """Leads each call to fal's service that it's for; what's left is the simulator's own."""

    def __init__(self, own: ASGIApp, simulator: Simulator) -> None:
        self._own = own
        self._simulator = simulator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._own(scope, receive, send)
            return
        call = Call(scope, receive)
        name, path = door(call.headers.get("host", ""), scope["path"])
        service = SERVICES.get(name)
        if service is None:
            await self._own(scope, receive, send)
            return
        response = await service(self._simulator, call, path)
        await response(scope, receive, send)


def create_simulator(config: SimulatorConfig, *, webhook_transport: httpx.AsyncBaseTransport | None = None) -> FastAPI:
    """
    fal in a box, opened and closed by the app's lifespan.

    Webhooks go out over sockets, or over *webhook_transport* (an `httpx.ASGITransport` of the app that wants
    them, for tests without a network). The Simulator itself is `app.state.simulator`.
    """
    simulator = Simulator(config, webhook_transport=webhook_transport)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await simulator.open()
        try:
            yield
        finally:
            await simulator.close()

    app = FastAPI(
        title="fal simulator",
        description="fal in a box. No money is spent.",
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    app.state.simulator = simulator
    app.include_router(admin.router)
    app.include_router(page.router)
    app.add_middleware(Doors, simulator=simulator)
    return app
