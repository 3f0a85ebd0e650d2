"""What the fault suite stands on: a nursery of processes and a durable Postgres per module, a database per test."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from app.migrate import upgrade
from tests.faults.stage import Nursery, Server, Stage, staged

EMPTY = "callsheet_empty"


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as found:
        yield found


@pytest.fixture(scope="module")
def durable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Postgres that may be killed: what it says is committed is on disk."""
    with Server(tmp_path_factory.mktemp("durable") / "data") as server:
        server.run(f"CREATE DATABASE {EMPTY}")
        upgrade(server.url(EMPTY))
        yield server


@pytest.fixture
async def stage(nursery: Nursery, durable: Server, tmp_path: Path) -> AsyncIterator[Stage]:
    """An installation of real processes; the simulator runs, API and worker are the test's to start."""
    # A test that failed may have left it dead.
    await durable.start()
    name = f"stage_{uuid4().hex}"
    durable.run(f"CREATE DATABASE {name} TEMPLATE {EMPTY}")
    async with staged(nursery, durable, name, tmp_path) as found:
        yield found
    durable.run(f"DROP DATABASE {name} WITH (FORCE)")
