"""callsheet serve, work, migrate, simulate: one process each, against one DATABASE_URL."""

import asyncio
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from app import logs
from app.cli.trouble import Trouble
from app.settings import Settings, SettingsError


def serve(*, host: str | None = None, port: int | None = None, processes: int | None = None) -> None:
    """
    Serve the HTTP API.

    Parameters
    ----------
    host
        Address to listen on instead of BIND.
    port
        Port to listen on instead of PORT.
    processes
        How many processes serve it, instead of PROCESSES.
    """
    from uvicorn import Config  # noqa: PLC0415

    from app.cli.serving import Server, config  # noqa: PLC0415
    from app.cli.several import Several  # noqa: PLC0415
    from app.main import create_app  # noqa: PLC0415

    settings = _settings(bind=host, port=port, processes=processes)

    def configured() -> Config:
        return config(
            create_app(settings),
            settings.bind,
            settings.port,
            stop_s=4,
            slow_s=settings.slow_request_s,
            keep_alive_s=settings.keep_alive_s,
        )

    def run(sockets: list[socket.socket] | None = None) -> None:
        server = Server(configured())
        with suppress(KeyboardInterrupt):
            server.run(sockets)
        if not server.started:
            raise Trouble("The HTTP server could not start; its log line says why.")

    if settings.processes == 1:
        run()
        return
    with configured().bind_socket() as sock:
        Several(settings.processes, lambda: run([sock])).run()


def work() -> None:
    """Run the background loops: submit to fal, ask fal, keep results."""
    from app.cli.looping import run as run_loop  # noqa: PLC0415
    from app.wiring import opened  # noqa: PLC0415
    from app.worker import work as run_loops  # noqa: PLC0415

    settings = _settings()

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with opened(settings) as parts:
            # Long enough for any call to fal to end: one that is cut short leaves a job nobody is sure about.
            await run_loops(parts, stop, drain_s=settings.fal_timeout_s + 5)

    run_loop(run())


def migrate() -> None:
    """Bring the database's tables to this version; run it before the new version starts."""
    from app.migrate import upgrade  # noqa: PLC0415

    settings = _settings()
    if settings.database_url is None:
        raise SettingsError("DATABASE_URL: is needed here; `callsheet up` brings a Postgres of its own")
    upgrade(settings.database_url.get_secret_value())
    print("The database is at this version.")


def simulate(
    *,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(env_var="SIMULATOR_PORT")] = 8001,
    data: Path | None = None,
    public_url: str | None = None,
) -> None:
    """
    Run fal in a box: the same HTTP API, real videos of a test picture, no money spent.

    Parameters
    ----------
    host
        Address to listen on.
    port
        Port to listen on.
    data
        Folder to keep its books and videos in; without it they end with the process.
    public_url
        How callers reach it, if not by host and port.
    """
    from app.simulator.config import SimulatorConfig  # noqa: PLC0415
    from app.simulator.serve import serve as serve_simulator  # noqa: PLC0415

    logs.setup()
    config = SimulatorConfig(public_url=public_url or f"http://{host}:{port}", data_dir=data)
    asyncio.run(serve_simulator(config, host, port))


def _settings(**given: object) -> Settings:
    settings = Settings.read(**{name: value for name, value in given.items() if value is not None})
    logs.setup(settings.log_level, json=settings.log_json)
    return settings
