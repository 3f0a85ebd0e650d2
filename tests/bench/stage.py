"""What the figures are measured on: a durable Postgres, the product's own processes, and a fal that costs nothing."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import httpx
import psycopg
from sqlalchemy.engine import make_url

from app.jobs.states import ENDINGS, JobStatus
from app.migrate import upgrade
from app.postgres import EmbeddedPostgres
from app.postgres.folder import postmaster_pid
from app.settings import Settings
from app.tenants.keys import Scope
from tests.bench.figure import NotYet, Wrong
from tests.bench.load import Order
from tests.bench.machine import Watch
from tests.bench.pgbench import MADE, TENANT
from tests.ports import free_port

ROOT: Final = Path(__file__).parents[2]
MODEL: Final = "fal-ai/kling-video/o3/4k/text-to-video"
TENANTS: Final = 1_000
MADE_JOBS: Final = 20_000
ORDER_BODY: Final = json.dumps({"model": MODEL, "input": {"prompt": "a mecha lands " * 20, "duration": "5"}})


OF_ORDER: Final = f"Content-Type: application/json\r\nContent-Length: {len(ORDER_BODY)}"


UNFINISHED: Final = ", ".join(f"'{status}'" for status in JobStatus if status not in ENDINGS)
DUE: Final = {
    # Also by status, for which there is an index: to read all jobs would leave no other page in memory.
    "jobs": f"due_at IS NOT NULL AND status IN ({UNFINISHED})",
    "outputs": "due_at IS NOT NULL",
    "callback_deliveries": "due_at IS NOT NULL",
}


def key_of(number: int) -> str:
    """The key of tenant *number*; as long as real ones, and no secret."""
    return f"cs_{number:043}"


def tenants_sql(count: int = TENANTS) -> str:
    """SQL that makes *count* tenants with an account without limit and one key each."""
    tenant = TENANT.replace(":t", "n")
    scopes = ", ".join(f"'{scope}'" for scope in sorted(Scope))
    each = f"FROM generate_series(1, {count}) AS n"
    return f"""
        INSERT INTO tenants (id, name) SELECT {tenant}, 'bench-' || n {each};
        INSERT INTO accounts (tenant_id) SELECT {tenant} {each};
        INSERT INTO api_keys (tenant_id, id, name, prefix, digest, scopes)
        SELECT {tenant}, {tenant}, 'bench', 'cs_', sha256(CAST('cs_' || lpad(CAST(n AS text), 43, '0') AS bytea)),
               ARRAY[{scopes}] {each};
    """


@dataclass
class Stage:
    """Everything a figure may use."""

    folder: Path
    postgres: EmbeddedPostgres
    seconds: float
    rounds: int
    quick: bool
    url: str = ""
    yardstick: str = ""
    api_port: int = 0
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)

    # --- Postgres ----------------------------------------------------------------------------------------------

    def database(self, name: str) -> str:
        """The URL of database *name* on this server."""
        return make_url(self.postgres.url).set(database=name).render_as_string(hide_password=False)

    def sql(self, statement: str, url: str | None = None) -> list[Any]:
        """What *statement* brings, in a transaction of its own."""
        dsn = (url or self.url).replace("+psycopg", "")
        with psycopg.connect(dsn, autocommit=True) as connection:
            done = connection.execute(statement.encode())
            return done.fetchall() if done.description else []

    def put_off(self) -> None:
        """Let nothing be due: what other figures left, or a long past, would be looked after first."""
        for table, which in DUE.items():
            self.sql(f"UPDATE {table} SET due_at = now() + interval '1 day' WHERE {which}")

    def make_databases(self) -> None:
        """One that the product serves, and the same again for the yardstick."""
        self.url, self.yardstick = self.database("bench"), self.database("yardstick")
        self.sql("CREATE DATABASE bench", self.postgres.url)
        upgrade(self.url)
        self.sql(tenants_sql())
        # Of tables that never held anything Postgres knows nothing, and plans what it checks by guesses.
        self.sql(MADE.replace(":jobs", str(MADE_JOBS)))
        self.sql("CREATE DATABASE yardstick TEMPLATE bench", self.postgres.url)
        for url in (self.url, self.yardstick):
            self.sql("VACUUM ANALYZE", url)

    def postgres_pids(self) -> list[int]:
        pid = postmaster_pid(self.postgres.data_dir / "cluster")
        return [pid] if pid else []

    # --- Processes ---------------------------------------------------------------------------------------------

    def start(self, name: str, *command: str, environment: Mapping[str, str] | None = None) -> None:
        """Start a process that ends with the stage."""
        known = {key: value for key, value in os.environ.items() if key.lower() not in Settings.model_fields}
        log = (self.folder / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(
            command,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**known, "PYTHONPATH": str(ROOT), "LOG_LEVEL": "ERROR", **(environment or {})},
        )
        log.close()

    def stop(self, *names: str) -> None:
        """Stop processes, by force if they don't in ten seconds."""
        for process in (found := [self.processes.pop(name) for name in names if name in self.processes]):
            process.terminate()
        for process in found:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @asynccontextmanager
    async def serving(
        self, name: str, *command: str, port: int, path: str, environment: Mapping[str, str] | None = None
    ) -> AsyncIterator[int]:
        """A process that answers on *port*, while the block runs."""
        self.start(name, *command, environment=environment)
        try:
            await self.answers(name, f"http://127.0.0.1:{port}{path}")
            yield port
        finally:
            self.stop(name)

    async def answers(self, name: str, url: str, within_s: float = 60) -> None:
        """Wait until *url* answers. Raises Wrong if it doesn't."""
        until = time.monotonic() + within_s
        async with httpx.AsyncClient(trust_env=False) as http:
            while time.monotonic() < until and self.processes[name].poll() is None:
                try:
                    await http.get(url)
                except httpx.HTTPError:
                    await asyncio.sleep(0.05)
                else:
                    return
        raise Wrong(f"{name} doesn't answer: {(self.folder / f'{name}.log').read_text()[-300:]}")

    def settings(self, fal_port: int = 9, **more: str) -> dict[str, str]:
        """The environment of our own processes."""
        return {
            "DATABASE_URL": self.url,
            "FAL_KEY": "bench",
            "FAL_QUEUE_URL": f"http://127.0.0.1:{fal_port}/queue",
            "FAL_API_URL": f"http://127.0.0.1:{fal_port}/v1",
            "FAL_JWKS_URL": f"http://127.0.0.1:{fal_port}/jwks",
            "PUBLIC_URL": f"http://127.0.0.1:{self.api_port}",
            "DATA": str(self.folder / "data"),
            **more,
        }

    @asynccontextmanager
    async def fal(self, webhook_s: float | None = None) -> AsyncIterator[int]:
        """A fal on a port of its own."""
        port = free_port()
        delay = [] if webhook_s is None else [str(webhook_s)]
        command = (sys.executable, "-m", "tests.bench.fal", str(port), *delay)
        async with self.serving("fal", *command, port=port, path="/jwks"):
            yield port

    @asynccontextmanager
    async def api(self, fal_port: int = 9, **settings: str) -> AsyncIterator[int]:
        """`callsheet serve`; BENCH_SERVE adds to its command line."""
        self.api_port = free_port()
        more = os.environ.get("BENCH_SERVE", "").split()
        environment = self.settings(fal_port, PORT=str(self.api_port), **settings)
        async with self.serving(
            "serve", *callsheet("serve", *more), port=self.api_port, path="/livez", environment=environment
        ):
            yield self.api_port

    @contextmanager
    def worker(self, fal_port: int, **settings: str) -> Iterator[None]:
        """`callsheet work`, submitting to the fal at *fal_port*."""
        self.start("work", *callsheet("work"), environment=self.settings(fal_port, **settings))
        try:
            yield
        finally:
            self.stop("work")

    # --- Load --------------------------------------------------------------------------------------------------

    async def load(self, order: Order) -> dict[str, Any]:
        """What came of *order*, from a process of its own. Raises Wrong if any answer was."""
        python = [process.pid for name, process in self.processes.items() if name in {"serve", "work"}]
        with Watch(python=python, postgres=self.postgres_pids()) as watch:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.bench.load",
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            out, _ = await process.communicate(json.dumps(_fields(order)).encode())
        found: dict[str, Any] = json.loads(out) if process.returncode == 0 else {"wrong": 1, "first_wrong": "load died"}
        if found["wrong"]:
            raise Wrong(f"{found['wrong']} wrong answers, the first: {found['first_wrong']}")
        return {**found, **watch.cores}

    async def load_warm(self, order: Order) -> dict[str, Any]:
        """`load`, after half of it that isn't counted: what a process does once is a matter of its start."""
        await self.load(replace(order, seconds=order.seconds / 2))
        return await self.load(order)

    async def has_path(self, path: str) -> None:
        """Raises NotYet unless the API of this stage documents *path*."""
        async with httpx.AsyncClient(trust_env=False) as http:
            document = (await http.get(f"http://127.0.0.1:{self.api_port}/openapi.json")).json()
        if path not in document["paths"]:
            raise NotYet(f"there is no {path}")


def callsheet(*arguments: str) -> Sequence[str]:
    """The command line of our own CLI."""
    return (sys.executable, "-m", "app.cli", *arguments)


def orders(tenants: int = TENANTS) -> list[list[str]]:
    """POST /v1/jobs as each of the first *tenants* sends it."""
    return [
        [
            f"POST /v1/jobs HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key_of(n)}\r\n" + OF_ORDER,
            ORDER_BODY,
        ]
        for n in range(1, tenants + 1)
    ]


def among(column: str, ids: Sequence[str]) -> str:
    """SQL: *column* of any tenant is one of *ids*; found by an index, however many rows there are."""
    listed = ", ".join(f"'{each}'" for each in ids)
    within = f"{column} BETWEEN '{min(ids)}' AND '{max(ids)}'"
    return f"tenant_id IN (SELECT id FROM tenants) AND {within} AND {column} IN ({listed})"


def gets(*paths: tuple[str, int]) -> list[list[str]]:
    """GET of each path, as the tenant of that number."""
    return [[f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key_of(n)}", ""] for path, n in paths]


def seen(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a report keeps of a load."""
    return {name: round(value, 3) for name, value in found.items() if name not in {"ids", "first_wrong"}}


def _fields(order: Order) -> dict[str, Any]:
    return {name: getattr(order, name) for name in order.__slots__}
