"""What it was measured on, and who used the processors meanwhile."""

import os
import platform
import time
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import psycopg

TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
PACKAGES: Final = (
    "callsheet",
    "fastapi",
    "uvicorn",
    "httpx",
    "aiohttp",
    "psycopg",
    "sqlalchemy",
    "procrastinate",
    "dbos",
    "pgqueuer",
)
DURABLE: Final = ("fsync", "synchronous_commit", "full_page_writes")


def facts(dsn: str) -> dict[str, Any]:
    """Versions and settings. Raises AssertionError if Postgres isn't set to keep what it promised."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        shown = {
            name: connection.execute(f"SHOW {name}".encode()).fetchone()
            for name in (*DURABLE, "server_version", "shared_buffers")
        }
    settings = {name: row[0] for name, row in shown.items() if row}
    assert all(settings[name] == "on" for name in DURABLE), settings
    return {
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **settings,
        **{name: found for name in PACKAGES if (found := _version(name))},
        "load_average": os.getloadavg()[0],
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def cpu_s(pids: Iterable[int]) -> float:
    """Processor seconds that the processes and their descendants have used."""
    return sum(_cpu_s(pid) for root in pids for pid in family(root))


class Watch:
    """How many cores Python and Postgres used while the block ran; nothing where there is no /proc."""

    def __init__(self, **roots: list[int]) -> None:
        self._roots = roots
        self.cores: dict[str, float] = {}

    def __enter__(self) -> "Watch":
        self._before = {name: cpu_s(pids) for name, pids in self._roots.items()}
        self._since = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        took_s = time.perf_counter() - self._since
        self.cores = {
            f"cores_{name}": round((cpu_s(pids) - self._before[name]) / took_s, 2) for name, pids in self._roots.items()
        }


def family(root: int) -> list[int]:
    found = [root]
    for pid in found:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [int(child) for child in _read(children).split()]
    return found


def _cpu_s(pid: int) -> float:
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    # With those of children that have ended.
    return sum(map(int, fields[11:15])) * TICK_S if fields else 0.0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
