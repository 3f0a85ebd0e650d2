"""A whole installation of real processes: Postgres, API, worker and simulator, each to be killed and started again."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import httpx
import psycopg
from sqlalchemy.engine import make_url

from app.db import Database
from app.postgres import EmbeddedPostgres
from app.postgres.folder import postmaster_pid
from app.settings import Settings
from tests import clips
from tests import factories as make
from tests.faults.promises import Findings, assert_promises, check
from tests.faults.proxy import Proxy
from tests.ports import free_port

ROOT: Final = Path(__file__).parents[2]
FAL_TIMEOUT_S: Final = 1.0
LEASE_S: Final = 2.5
NAP_S: Final = 0.02


async def until(
    true: Callable[[], Awaitable[Any]], within_s: float = 60.0, what: str = "", *, pause_s: float = NAP_S
) -> Any:
    """What *true* returns, once that is true."""
    try:
        async with asyncio.timeout(within_s):
            while not (found := await true()):
                await asyncio.sleep(pause_s)
            return found
    except TimeoutError:
        raise AssertionError(f"not within {within_s:g} s: {what or true}") from None


class Nursery:
    """Forks processes; nothing it started outlives it, and it doesn't outlive us."""

    def __init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.process"],
            cwd=ROOT,
            env={**environment, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Ctrl-C is for us; the nursery ends when its stdin does.
            start_new_session=True,
        )
        self._one_at_a_time = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill what still runs."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def ask(self, **order: Any) -> Any:
        """The nursery's answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._one_at_a_time:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())


@dataclass
class Child:
    """A process that can be started, killed and started again."""

    nursery: Nursery
    command: str
    inside: Path
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    pid: int = 0

    def start(self, environment: Mapping[str, str] | None = None) -> None:
        """Start it, with more *environment* for this time only."""
        self.pid = self.nursery.ask(
            do="start",
            command=self.command,
            inside=str(self.inside),
            log=str(self.log),
            environment={**self.environment, **(environment or {})},
            settings=dict(self.settings),
        )

    def runs(self) -> bool:
        """Whether it still does."""
        return self.pid != 0 and self.nursery.ask(do="look", pid=self.pid) is None

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End it, and wait until it is gone; SIGKILL reaches a halted process, too."""
        if self.pid:
            self.nursery.ask(do="signal", pid=self.pid, number=number)
            self.pid = 0

    async def died(self) -> None:
        """Wait until it is gone by itself."""

        async def gone() -> bool:
            return not self.runs()

        await until(gone, what=f"{self.command} dies")
        self.pid = 0


class Server:
    """A durable Postgres that can be killed like a machine whose power goes."""

    def __init__(self, folder: Path) -> None:
        self.embedded = EmbeddedPostgres(folder, settings={"max_connections": "200", "max_wal_size": "4GB"})

    def __enter__(self) -> Self:
        self.embedded.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.embedded.stop()

    @property
    def socket(self) -> Path:
        """Where it listens."""
        query = make_url(self.embedded.url).query
        return Path(str(query["host"]), f".s.PGSQL.{query['port']}")

    def url(self, database: str) -> str:
        return make_url(self.embedded.url).set(database=database).render_as_string(hide_password=False)

    def run(self, statement: str) -> None:
        with psycopg.connect(self.embedded.url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(statement.encode())

    def kill(self) -> None:
        """SIGKILL, to the postmaster; its backends notice and end themselves."""
        pid = postmaster_pid(self.embedded.data_dir / "cluster")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        while self.embedded.is_alive():
            time.sleep(0.001)

    async def start(self) -> None:
        """Start it again; it replays what it had promised."""
        await asyncio.to_thread(self.embedded.start)


@dataclass
class Stage:
    """One installation over a database of its own."""

    server: Server
    db: Database
    url: str
    folder: Path
    to_postgres: Proxy
    to_fal: Proxy
    http: httpx.AsyncClient
    fal_url: str
    keys: list[str]
    simulator: Child
    apis: list[Child]
    workers: list[Child]
    api_urls: list[str]
    accepted: set[str] = field(default_factory=set)

    @property
    def api(self) -> Child:
        return self.apis[0]

    @property
    def worker(self) -> Child:
        return self.workers[0]

    async def ready(self, url: str, within_s: float = 60.0) -> None:
        """Wait until *url* answers well."""

        async def answers() -> bool:
            try:
                return (await self.http.get(url)).is_success
            except httpx.HTTPError:
                return False

        await until(answers, within_s, url)

    async def open_api(self, environment: Mapping[str, str] | None = None, *, number: int = 0) -> None:
        """Start an API process, with more *environment* for this time only, and wait until it answers."""
        self.apis[number].start(environment)
        await self.ready(f"{self.api_urls[number]}/livez")

    async def order(
        self, name: str, prompt: str, *, again: int = 1000, key: int = 0, at: int | None = None
    ) -> str | None:
        """
        The job's id once the order is answered: sent again, with its Idempotency-Key, after whatever goes wrong.

        *again* bounds how often; None if there was no answer by then.
        """
        for turn in range(again):
            url = self.api_urls[(turn if at is None else at) % len(self.api_urls)]
            headers = {"Authorization": f"Bearer {self.keys[key]}", "Idempotency-Key": name}
            body = {"model": make.O3, "input": {"prompt": f"{prompt} {name}", "duration": "5"}}
            try:
                answer = await self.http.post(f"{url}/v1/jobs", json=body, headers=headers)
            except httpx.HTTPError:
                await asyncio.sleep(NAP_S)
                continue
            if answer.is_success:
                job_id: str = answer.json()["id"]
                self.accepted.add(job_id)
                return job_id
            assert answer.status_code >= 500, answer.text
            await asyncio.sleep(NAP_S)
        return None

    async def books(self) -> list[Any]:
        """What fal says it was asked for."""
        answer = await self.http.get(f"{self.fal_url}/simulator/requests", params={"limit": 1_000_000})
        found: list[Any] = answer.raise_for_status().json()["requests"]
        return found

    async def faults_at_fal(self, rates: Mapping[str, float], seed: int | None = None) -> None:
        params = {} if seed is None else {"seed": seed}
        (await self.http.put(f"{self.fal_url}/simulator/faults", json=rates, params=params)).raise_for_status()

    async def webhook_again(self, request_id: str, form: str = "ok") -> Any:
        """One more webhook about an ended request."""
        answer = await self.http.post(f"{self.fal_url}/simulator/webhooks/{request_id}", json={"form": form})
        return answer.raise_for_status().json()

    async def see(self, job_id: str) -> Any:
        """Status, charge and number of attempts of a job, straight from the database."""
        rows = await self.rows(f"SELECT status, charged, attempts FROM jobs WHERE id = '{job_id}'")
        return rows[0] if rows else None

    async def rows(self, query: str) -> list[Any]:
        async with await psycopg.AsyncConnection.connect(self.url.replace("+psycopg", ""), autocommit=True) as found:
            return await (await found.execute(query.encode())).fetchall()

    async def at_point(self, child: Child, point: str) -> Callable[[], None]:
        """Wait until *child* is halted at *point*; what comes back lets it go on."""
        pipe = self.folder / point
        end = -1

        async def halted() -> bool:
            nonlocal end
            assert child.runs(), child.log.read_text()
            try:
                # Opens only if there is somebody at the other end, who then waits for it to close.
                end = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                return False
            return True

        await until(halted, what=point)
        return lambda: os.close(end)

    def points(self, orders: Mapping[str, str]) -> dict[str, str]:
        """The environment that kills or halts a process at points, as *orders* say."""
        for point, what in orders.items():
            (self.folder / f"{point}.reached").unlink(missing_ok=True)
            if what == "hold" and not (self.folder / point).exists():
                os.mkfifo(self.folder / point)
        return {"POINTS": json.dumps(dict(orders)), "POINTS_DIR": str(self.folder)}

    async def copies(self) -> dict[Path, int]:
        """Our own copies of results, as the database tells of them: where each is, and how large."""
        rows = await self.rows("SELECT path, size FROM outputs WHERE safe_at IS NOT NULL")
        return {self.folder / ".callsheet" / "outputs" / path: size for path, size in rows}

    async def findings(self) -> Findings:
        books = await self.books()
        return await asyncio.to_thread(check, self.url, books, self.accepted, fal_tells=True)

    async def rest(self, within_s: float = 60.0) -> Findings:
        """Wait until nothing moves any more, and every promise is kept."""
        found = Findings()

        async def still() -> bool:
            nonlocal found
            books = await self.books()
            if not all(request["told"] for request in books):
                return False
            found = await asyncio.to_thread(check, self.url, books, self.accepted, fal_tells=True)
            return found.unfinished_unexplained == 0

        try:
            await until(still, within_s)
        except AssertionError:
            found = await self.findings()
            raise AssertionError((found.counts, found.notes, self.worker.log.read_text()[-3000:])) from None
        return await asyncio.to_thread(assert_promises, self.url, await self.books(), self.accepted)


@asynccontextmanager
async def staged(
    nursery: Nursery,
    server: Server,
    database: str,
    folder: Path,
    *,
    apis: int = 1,
    workers: int = 1,
    tenants: int = 1,
    simulator: Mapping[str, Any] | None = None,
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[Stage]:
    """An installation with its simulator running; API and workers are the caller's to start."""
    async with AsyncExitStack() as stack:
        to_postgres = await stack.enter_async_context(Proxy(server.socket))
        fal_port = free_port()
        to_fal = await stack.enter_async_context(Proxy(("127.0.0.1", fal_port)))
        url = server.url(database)
        db = Database(url)
        stack.push_async_callback(db.close)
        keys = [(await make.make_key(db))[1] for _ in range(tenants)]
        await db.close()
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=10, trust_env=False))
        ports = [free_port() for _ in range(apis)]
        fal = f"http://127.0.0.1:{to_fal.port}"
        shared = {
            "DATABASE_URL": f"postgresql://postgres@127.0.0.1:{to_postgres.port}/{database}?sslmode=disable",
            "FAL_KEY": "test",
            "FAL_QUEUE_URL": f"{fal}/queue",
            "FAL_API_URL": f"{fal}/v1",
            "FAL_REST_URL": f"http://127.0.0.1:{fal_port}/rest",
            "FAL_JWKS_URL": f"http://127.0.0.1:{fal_port}/rest/.well-known/jwks.json",
            "FAL_TIMEOUT_S": str(FAL_TIMEOUT_S),
            "CALLBACK_TIMEOUT_S": str(FAL_TIMEOUT_S),
            "LEASE_S": str(LEASE_S),
            "PROGRESS_S": "0.3",
            "POLL_S": "0.2",
            "LOG_JSON": "true",
            "ALLOW_PRIVATE_OUTPUTS": "true",
            "CALLBACK_ALLOW_NETWORKS": "127.0.0.0/8",
            **(settings or {}),
        }

        def child(command: str, name: str, **environment: str) -> Child:
            found = Child(nursery, command, folder, folder / f"{name}.log", {**shared, **environment})
            stack.callback(found.kill)
            return found

        fal_box = Child(
            nursery,
            "simulate",
            folder,
            folder / "simulator.log",
            settings={
                "public_url": fal,
                "port": fal_port,
                "data_dir": str(folder / "simulator"),
                "queue_s": 0.05,
                "run_s": 0.1,
                "concurrency": 50,
                "webhook_retry_s": [0.2, 0.3, 0.5, 0.5, 1, 1, 1, 2, 2, 4],
                "webhook_timeout_s": [3, 3],
                **(simulator or {}),
            },
        )
        stack.enter_context(clips.shared(folder / "simulator"))
        stack.callback(fal_box.kill)
        fal_box.start()
        stage = Stage(
            server=server,
            db=db,
            url=url,
            folder=folder,
            to_postgres=to_postgres,
            to_fal=to_fal,
            http=http,
            fal_url=f"http://127.0.0.1:{fal_port}",
            keys=keys,
            simulator=fal_box,
            apis=[child("serve", f"api-{n}", PORT=str(port)) for n, port in enumerate(ports)],
            workers=[
                child("work", f"worker-{n}", PUBLIC_URL=f"http://127.0.0.1:{ports[n % apis]}") for n in range(workers)
            ],
            api_urls=[f"http://127.0.0.1:{port}" for port in ports],
        )
        await stage.ready(f"{stage.fal_url}/simulator/clock")
        yield stage
