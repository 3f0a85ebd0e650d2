"""fal's own clients, as released, in processes of their own; the simulator they believe to be fal; and what was said."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from app.simulator.app import create_simulator
from app.simulator.config import SimulatorConfig
from tests.clients import node, tls
from tests.clients.recorder import Exchange, Recorder

KEY: Final = "kid:ksecret"
OWN_HOST: Final = "simulator.example"
DOORS: Final = {"queue": "queue.fal.run", "run": "fal.run", "rest": "rest.fal.ai"}
PATIENCE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Client:
    """A released client of fal and the simulator at its other end."""

    command: tuple[str, ...]
    environment: dict[str, str]
    recorder: Recorder
    simulator: FastAPI
    own_url: str

    async def do(self, exchange: str, **arguments: Any) -> Any:
        """What the client returned or raised in *exchange* of its driver."""
        process = await asyncio.create_subprocess_exec(
            *self.command,
            exchange,
            json.dumps(arguments),
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        except TimeoutError:
            process.kill()
            out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return json.loads(out)

    @property
    def heard(self) -> list[Exchange]:
        """Every request of the client, in the order of arrival."""
        return self.recorder.heard

    async def read(self, url: str) -> bytes:
        """The file at *url* of the simulator's CDN."""
        async with self._direct() as direct:
            answer = await direct.get(url)
            assert answer.status_code == 200
            return answer.content

    async def order(self, endpoint: str, order: dict[str, Any], headers: dict[str, str]) -> str:
        """The id of an order placed past the client and the recorder."""
        async with self._direct() as direct:
            answer = await direct.post(f"/queue/{endpoint}", json=order, headers=headers)
            return str(answer.json()["request_id"])

    def _direct(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=self.simulator)
        return httpx.AsyncClient(transport=transport, base_url=self.own_url, headers={"Authorization": f"Key {KEY}"})


Start = Callable[..., Awaitable[Client]]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tls.Certificates:
    """What fal's hosts show on this machine."""
    return tls.issue(tmp_path_factory.mktemp("certificates"), *tls.FAL_HOSTS, OWN_HOST)


@pytest.fixture
async def python(certificates: tls.Certificates) -> AsyncIterator[Start]:
    """Starts a simulator with the given settings and leads the Python client's every call to it."""
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Client:
            own_url = f"https://{OWN_HOST}"
            simulator, recorder = await stage(stack, own_url, settings)
            listener = stack.enter_context(free_port())
            await stack.enter_async_context(serving(recorder, listener, certificates))
            proxy = await stack.enter_async_context(tls.proxy_to(port_of(listener)))
            environment = clean_environment() | {
                "HTTPS_PROXY": proxy,
                "SSL_CERT_FILE": str(certificates.authority),
            }
            command = (sys.executable, str(Path(__file__).with_name("python_driver.py")))
            return Client(command, environment, recorder, simulator, own_url)

        yield start


@pytest.fixture(scope="session")
def node_path() -> str:
    """Where `node` is, the client's packages installed; skips the test where that can't be had."""
    try:
        return node.install()
    except node.Unavailable as reason:
        pytest.skip(f"{reason}: the JavaScript client's exchanges were not run")


@pytest.fixture
async def javascript(node_path: str) -> AsyncIterator[Start]:
    """Starts a simulator with the given settings and points the JavaScript client at it."""
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Client:
            listener = stack.enter_context(free_port())
            own_url = f"http://127.0.0.1:{port_of(listener)}"
            simulator, recorder = await stage(stack, own_url, settings)
            await stack.enter_async_context(serving(recorder, listener))
            command = (node_path, str(node.FOLDER / "driver.mjs"), own_url)
            return Client(command, clean_environment(), recorder, simulator, own_url)

        yield start


def clean_environment() -> dict[str, str]:
    """Ours without whatever would lead a client elsewhere, and with the key."""
    misleading = ("FAL_", "NODE_", "NPM_", "SSL_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(misleading)}
    return kept | {"FAL_KEY": KEY}


async def stage(stack: AsyncExitStack, own_url: str, settings: dict[str, Any]) -> tuple[FastAPI, Recorder]:
    """A simulator for callers with our key, opened until *stack* closes, and the recorder before it."""
    settings = {"queue_s": 0.0, "run_s": 0.0, "billing_delay_s": 0.0} | settings
    simulator = create_simulator(SimulatorConfig(public_url=own_url, keys=frozenset({KEY}), **settings))
    await stack.enter_async_context(simulator.router.lifespan_context(simulator))
    return simulator, Recorder(simulator, own_url=own_url, doors=DOORS)


def free_port() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


@asynccontextmanager
async def serving(
    app: ASGIApp, listener: socket.socket, certificates: tls.Certificates | None = None
) -> AsyncIterator[None]:
    """Serve *app* on *listener*, under TLS if there are *certificates*."""
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
        ssl_certfile=certificates and certificates.server,
        ssl_keyfile=certificates and certificates.key,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield
    finally:
        server.should_exit = True
        await task
