"""callsheet up: Postgres, API, worker and, without a FAL_KEY, fal's simulator, all with one command."""

import asyncio
import os
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID, uuid4

import structlog
from cyclopts import Parameter
from fastapi import FastAPI
from rich.console import Console
from sqlalchemy.ext.asyncio import AsyncSession

from app import logs
from app.billing import ledger
from app.cli.looping import run
from app.cli.running import Running, write_private
from app.cli.serving import Server, config
from app.cli.trouble import Exit, Trouble
from app.db import Database
from app.fal.client import Unanswered
from app.main import create_app
from app.migrate import upgrade
from app.postgres import EmbeddedPostgres
from app.settings import DEFAULT, Settings
from app.tenants import auth, minting
from app.wiring import Parts, opened
from app.worker import work

log = structlog.get_logger()

STOP_S: Final = 2
WATCH_S: Final = 0.5
LOOPBACK: Final = "127.0.0.1"
PROMPT: Final = 'A mecha lands on the ground to save the city, and says "I\'m here", in anime style'
MODEL: Final = "fal-ai/kling-video/o3/4k/text-to-video"


def up(
    *,
    host: str | None = None,
    port: int | None = None,
    data: Path | None = None,
    simulator_port: Annotated[int, Parameter(env_var="SIMULATOR_PORT")] = 8001,
) -> None:
    """
    Start everything and say what to try.

    Parameters
    ----------
    host
        Address to listen on instead of BIND.
    port
        Port to listen on instead of PORT.
    data
        Folder for database and files instead of DATA.
    simulator_port
        Port of fal's simulator, which runs when FAL_KEY is not set.
    """
    given = {name: value for name, value in {"bind": host, "port": port, "data": data}.items() if value is not None}
    settings = Settings.read(**given)
    logs.setup("WARNING" if Console().is_terminal else settings.log_level, json=settings.log_json)
    _ensure_free(settings.bind, settings.port, "PORT")
    if not settings.has_fal:
        _ensure_free(LOOPBACK, simulator_port, "SIMULATOR_PORT")
    settings.data.mkdir(parents=True, exist_ok=True)
    postgres = None if settings.database_url else EmbeddedPostgres(settings.data.resolve() / "postgres")
    # Whoever holds the folder's Postgres is the only one here; what a killed one left behind may go.
    url = postgres.start() if postgres else _given_url(settings)
    try:
        Running.forget(settings.data)
        upgrade(url)
        in_force = _in_force(settings, url, simulator_port)
        run(_run(in_force, postgres, None if settings.has_fal else simulator_port))
    finally:
        Running.forget(settings.data)
        if postgres:
            postgres.stop()


def _given_url(settings: Settings) -> str:
    assert settings.database_url is not None  # noqa: S101 - the caller looked
    return settings.database_url.get_secret_value()


def _in_force(settings: Settings, url: str, simulator_port: int) -> Settings:
    given: dict[str, Any] = {**settings.model_dump(exclude_unset=True), "database_url": url}
    if not settings.has_fal:
        fal = f"http://{LOOPBACK}:{simulator_port}"
        given |= {
            "fal_key": "simulator",
            "fal_queue_url": f"{fal}/queue",
            "fal_api_url": f"{fal}/v1",
            "fal_rest_url": f"{fal}/rest",
            "fal_jwks_url": f"{fal}/rest/.well-known/jwks.json",
            "public_url": _url(settings),
            "allow_private_outputs": True,
            "progress_s": 1.0,
        }
        # Whoever tries it out listens on this machine.
        given.setdefault("callback_allow_networks", "127.0.0.0/8,::1/128")
    return Settings.read(**given)


async def _run(settings: Settings, postgres: EmbeddedPostgres | None, simulator_port: int | None) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        if simulator_port is not None:
            await stack.enter_async_context(Served(_simulator(settings.data, simulator_port), LOOPBACK, simulator_port))
        parts = await stack.enter_async_context(opened(settings))
        if simulator_port is None:
            await _check_key(parts)
        key = await _own_key(parts.db, settings.data)
        await stack.enter_async_context(Served(create_app(settings), settings.bind, settings.port))
        # As `work` does: a call to fal that is cut short leaves a job nobody is sure about.
        drain_s = STOP_S if simulator_port is not None else settings.fal_timeout_s + 5
        working = asyncio.create_task(work(parts, stop, drain_s=drain_s))
        # Orders that nobody sends must not be taken: without its worker, the rest stops too.
        working.add_done_callback(lambda _: stop.set())
        running = Running(
            url=_url(settings),
            api_key=key,
            simulator_url=f"http://{LOOPBACK}:{simulator_port}" if simulator_port is not None else None,
            pid=os.getpid(),
        )
        _welcome(running, settings.data)
        running.write(settings.data)
        await _watch(postgres, stop)
        await working


class Served:
    """An ASGI app on a port, for as long as the block runs."""

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        self._server = Server(config(app, host, port, stop_s=STOP_S))
        # Signals are ours: every part has to stop, not only this one.
        self._serving: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._serving = asyncio.create_task(self._server._serve())  # noqa: SLF001 - serve() would take the signals
        while not self._server.started:
            if self._serving.done():
                await self._serving
                raise Trouble("The HTTP server could not start; its log line says why.")
            await asyncio.sleep(0.005)

    async def __aexit__(self, *_: object) -> None:
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving


def _simulator(data: Path, port: int) -> FastAPI:
    from app.simulator.app import create_simulator  # noqa: PLC0415 - brings the video encoder
    from app.simulator.config import SimulatorConfig  # noqa: PLC0415

    return create_simulator(SimulatorConfig(public_url=f"http://{LOOPBACK}:{port}", data_dir=data / "simulator"))


async def _watch(postgres: EmbeddedPostgres | None, stop: asyncio.Event) -> None:
    """Until *stop*: start Postgres again if it was killed; what was committed is still there."""
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), WATCH_S)
        except TimeoutError:
            if postgres is not None and not postgres.is_alive():
                log.warning("postgres_gone")
                await asyncio.to_thread(postgres.start)
                log.warning("postgres_started_again")


async def _check_key(parts: Parts) -> None:
    """One question a key, which costs nothing: fal answers 404 about an unknown request if the key is good."""
    for account in parts.accounts.all:
        try:
            await account.queue.status(MODEL, str(uuid4()), None)
        except Unanswered as error:
            if str(error) in {"status code 401", "status code 403"}:
                name = "FAL_KEY" if account.name == DEFAULT else f"FAL_ACCOUNTS.{account.name.upper()}"
                raise Trouble(f"{name}: fal refuses this key ({error}); see fal.ai/dashboard/keys") from None
            if not str(error).startswith("status code"):
                log.warning("fal_unreachable", fal_account=account.name, why=str(error))


async def _own_key(db: Database, data: Path) -> str:
    """The key that `up` made for this data folder, made anew if it is gone or no longer works."""
    kept = data / "api_key"

    async def find_or_make(session: AsyncSession) -> str:
        text = kept.read_text(encoding="utf-8").strip() if kept.exists() else ""
        if text and await auth.find(session, text):
            return text
        tenant_id: UUID = await minting.ensure_tenant(session, "default")
        await ledger.open_account(session, tenant_id)
        key = await minting.create_key(session, tenant_id, name="made by callsheet up")
        # Before the commit: a key that works and that nobody has must not come to be.
        write_private(kept, key + "\n")
        return key

    return await db.run(find_or_make)


def _welcome(running: Running, data: Path) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print()
    console.print(f"[bold]Callsheet is up[/bold] at {running.url}", markup=True)
    if running.simulator_url:
        console.print(
            f"  fal        [yellow]the simulator[/yellow] at {running.simulator_url}/simulator: "
            "no money is spent; set FAL_KEY to use fal"
        )
    else:
        console.print("  fal        [bold]the real one[/bold]: orders cost money")
    console.print(f"  API docs   {running.url}/docs")
    console.print(f"  your key   {running.api_key}")
    console.print("\nOrder a video and follow it to its file and price, in another terminal:\n")
    folder = "" if data == Path(".callsheet") else f" --data {data}"
    quoted = PROMPT.replace("'", "'\\''")
    console.print(
        f"  {_own_command()} jobs submit {MODEL}{folder} -i prompt='{quoted}' -i duration=5 -i aspect_ratio=16:9"
        " --watch --output mecha.mp4\n",
        markup=False,
    )
    console.print("Ctrl-C stops everything.")


def _own_command() -> str:
    found = Path(".venv/bin/callsheet")
    return str(found) if found.exists() else "callsheet"


def _url(settings: Settings) -> str:
    """Where the service is reached from this machine."""
    host = LOOPBACK if settings.bind in {"0.0.0.0", "::"} else settings.bind  # noqa: S104 - only compared with
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _ensure_free(host: str, port: int, name: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Trouble(
                f"{name}: {port} on {host} can't be had ({error.strerror}); give another: make run {name}={port + 10}",
                Exit.REFUSED,
            ) from None
