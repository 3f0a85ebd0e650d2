"""Where fal's own clients meet the simulator: the ports, the programs that run the clients, and a test's view of it."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import httpx
import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from app.simulator.app import create_simulator
from app.simulator.config import SimulatorConfig
from tests.clients import tls
from tests.clients.recorder import Exchange, Recorder

KEY: Final = "kid:ksecret"
DOORS: Final = {"queue": "queue.fal.run", "run": "fal.run", "rest": "rest.fal.ai"}
MIB: Final = 1024 * 1024
PATIENCE_S: Final = 60.0
FOLDER: Final = Path(__file__).parent


class Port:
    """A port of this machine for all the tests of a process, each of which puts its own app behind it."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.number = int(self.listener.getsockname()[1])
        self.app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None, "a client called outside of its test"
        await self.app(scope, receive, send)


class Server(uvicorn.Server):
    """uvicorn for as long as the tests run: it says when it's ready, and leaves Ctrl-C to pytest."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(certificates: tls.Certificates | None = None) -> AsyncIterator[Port]:
    """A served port, under TLS if there are *certificates*."""
    port = Port()
    config = uvicorn.Config(
        port,
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
        ssl_certfile=None if certificates is None else certificates.server,
        ssl_keyfile=None if certificates is None else certificates.key,
    )
    server = Server(config)
    task = asyncio.create_task(server.serve(sockets=[port.listener]))
    await asyncio.wait_for(server.ready.wait(), PATIENCE_S)
    try:
        yield port
    finally:
        server.should_exit = True
        await task


class Program(Protocol):
    """Something that runs a client."""

    async def __call__(self, exchange: str, arguments: dict[str, Any]) -> Any:
        """What the client returned or raised in *exchange*."""


class PythonProgram:
    """The Python client's driver. One process for all exchanges: starting it takes longer than most of them."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None

    async def __call__(self, exchange: str, arguments: dict[str, Any]) -> Any:
        process = self._process or await self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([exchange, arguments]).encode() + b"\n")
        try:
            line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)
            assert line, "the Python client's driver died; its own words are above"
            return json.loads(line)
        except BaseException:
            # Its answer may still come, and mustn't be taken for the next one's.
            await self.stop()
            raise

    async def _start(self) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, str(FOLDER / "python_driver.py"))
        self._process = await asyncio.create_subprocess_exec(*command, env=self._environment, stdin=pipe, stdout=pipe)
        return self._process

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@dataclass(frozen=True, slots=True)
class NodeProgram:
    """
    The JavaScript client's driver, a process for each exchange.

    fetch keeps its connections, and one left over from an earlier test may close just when it's used again.
    """

    node: str
    url: str
    environment: dict[str, str]

    async def __call__(self, exchange: str, arguments: dict[str, Any]) -> Any:
        pipe = asyncio.subprocess.PIPE
        command = (self.node, str(FOLDER / "js" / "driver.mjs"), self.url, exchange, json.dumps(arguments))
        process = await asyncio.create_subprocess_exec(*command, env=self.environment, stdout=pipe, stderr=pipe)
        try:
            out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        except TimeoutError:
            process.kill()
            out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return json.loads(out)


def clean_environment() -> dict[str, str]:
    """Ours without whatever would lead a client elsewhere, and with the key."""
    misleading = ("FAL_", "NODE_", "SSL_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(misleading)}
    return kept | {"FAL_KEY": KEY}


@dataclass(frozen=True, slots=True)
class Client:
    """A client of fal as released, with the simulator at its other end."""

    program: Program
    recorder: Recorder
    simulator: FastAPI
    own_url: str

    async def do(self, exchange: str, **arguments: Any) -> Any:
        """What the client returned or raised in *exchange* of its driver."""
        return await self.program(exchange, arguments)

    @property
    def heard(self) -> list[Exchange]:
        """Every request of the client, in the order of arrival."""
        return self.recorder.heard

    async def do_in_time(self, exchange: str, *waits_s: float) -> Any:
        """The same, the simulator's clock put ahead by one of *waits_s* each time the client has seen a status."""
        async with asyncio.TaskGroup() as tasks, self._direct() as direct:
            doing = tasks.create_task(self.do(exchange))
            for wait_s in waits_s:
                seen = self._statuses()
                while self._statuses() == seen:
                    await asyncio.sleep(0.01)
                (await direct.put("/simulator/clock", json={"advance_s": wait_s})).raise_for_status()
        return doing.result()

    def _statuses(self) -> int:
        """How many statuses were told so far, one by one or in a stream."""
        return sum(exchange.answer.count(b'"status":') for exchange in self.heard[1:])

    async def read(self, url: str, part: slice = slice(0, MIB)) -> bytes:
        """The bytes of *part* of the file at *url* of the simulator's CDN."""
        async with self._direct() as direct:
            answer = await direct.get(url, headers={"Range": f"bytes={part.start}-{part.stop - 1}"})
            assert answer.status_code == 206
            return answer.content

    async def size(self, url: str) -> int:
        """How many bytes that file has."""
        async with self._direct() as direct:
            answer = await direct.head(url)
            assert answer.status_code == 200
            return int(answer.headers["content-length"])

    async def order(self, endpoint: str, order: dict[str, Any], headers: dict[str, str]) -> str:
        """The id of an order placed past the client and the recorder."""
        async with self._direct() as direct:
            answer = await direct.post(f"/queue/{endpoint}", json=order, headers=headers)
            return str(answer.json()["request_id"])

    async def books(self) -> list[dict[str, Any]]:
        """What the simulator was ordered and charges for, once every order has ended."""
        async with self._direct() as direct:
            while True:
                books = (await direct.get("/simulator/requests")).json()["requests"]
                if all(entry["state"] == "COMPLETED" for entry in books):
                    return list(books)
                await asyncio.sleep(0.02)

    def _direct(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=self.simulator)
        return httpx.AsyncClient(transport=transport, base_url=self.own_url, headers={"Authorization": f"Key {KEY}"})


Start = Callable[..., Awaitable[Client]]


@asynccontextmanager
async def simulating(port: Port, own_url: str, program: Program, settings: dict[str, Any]) -> AsyncIterator[Client]:
    """Put a simulator with *settings* behind *port*, for callers with our key, and a recorder before it."""
    settings = {"queue_s": 0.0, "run_s": 0.0} | settings
    simulator = create_simulator(SimulatorConfig(public_url=own_url, keys=frozenset({KEY}), **settings))
    async with simulator.router.lifespan_context(simulator):
        recorder = Recorder(simulator, own_url=own_url, doors=DOORS)
        port.app = recorder
        try:
            yield Client(program, recorder, simulator, own_url)
        finally:
            port.app = None
