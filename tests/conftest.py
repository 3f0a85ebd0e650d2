"""
What the tests stand on: a real Postgres, migrated once, copied for each test; Callsheet and fal's simulator as apps.

TEST_DATABASE_URL names a server to use; without it each test process brings its own, in a temporary folder.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import hypothesis
import pytest

from app.db import Database
from app.main import Service, create_app
from app.migrate import upgrade
from app.postgres import EmbeddedPostgres
from app.settings import Settings
from tests import signing
from tests.databases import Databases, connected, url_of
from tests.doorway import BehindDoors
from tests.sharing import (  # noqa: F401 - pytest looks for its hooks here
    pytest_collection_modifyitems,
    pytest_xdist_auto_num_workers,
    pytest_xdist_make_scheduler,
)
from tests.world import World, build

# That an example takes long tells of the machine, and of nothing that is tested.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")

TEMPLATE = f"callsheet_template_{os.getpid()}"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Postgres server whose databases may be made and dropped."""
    given = os.environ.get("TEST_DATABASE_URL")
    if given:
        yield given
        return
    # Speed only: these tests don't pull the plug on this server; those that do bring their own.
    hasty = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}
    with EmbeddedPostgres(tmp_path_factory.mktemp("postgres") / "data", settings=hasty) as postgres:
        yield postgres.url


def admin(server: str, statement: str) -> None:
    with connected(server) as connection:
        connection.execute(statement.encode())


@pytest.fixture(scope="session")
def template(server: str) -> Iterator[str]:
    """The name of a database at the newest migration, to be copied."""
    admin(server, f"CREATE DATABASE {TEMPLATE}")
    upgrade(url_of(server, TEMPLATE))
    yield TEMPLATE
    admin(server, f"DROP DATABASE {TEMPLATE} WITH (FORCE)")


@pytest.fixture(scope="session")
def databases(server: str, template: str) -> Iterator[Databases]:
    """Where each test's database comes from."""
    found = Databases(server, template)
    yield found
    found.close()


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """A database of the test's own: what it commits is really committed."""
    url = databases.take()
    yield url
    databases.give_back(url)


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """That database, opened."""
    database = Database(database_url, pool=20)
    yield database
    await database.close()


@pytest.fixture
async def api(database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Callsheet's HTTP API over the test's database; of fal there is only the page with its keys."""
    fal = httpx.MockTransport(lambda _: httpx.Response(200, json=signing.JWKS))
    settings = Settings.read(database_url=database_url, fal_key="test", _env_file=None)
    app = create_app(settings, fal_transport=fal)
    async with app.router.lifespan_context(app), client_of(app) as client:
        yield client


def client_of(app: Service) -> httpx.AsyncClient:
    """A client of *app* that needs no socket; an error of ours is answered, not raised."""
    transport = httpx.ASGITransport(app=BehindDoors(app), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://callsheet")


@pytest.fixture
async def world(database_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """Callsheet and the simulator, wired to each other without sockets."""
    async with AsyncExitStack() as stack:
        yield await build(stack, database_url, tmp_path)
