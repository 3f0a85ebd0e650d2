"""fal's own clients, as released, each led to a simulator of the test's own."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest

from tests.clients import node, tls
from tests.clients.stage import (
    Client,
    NodeProgram,
    Port,
    PythonProgram,
    Start,
    clean_environment,
    serving,
    simulating,
)

OWN_HOST: Final = "simulator.example"


@pytest.fixture(scope="session")
async def python_stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Port, PythonProgram]]:
    """A port under TLS that bears fal's names, and Python's client behind a proxy that leads only there."""
    certificates = tls.issue(tmp_path_factory.mktemp("certificates"), *tls.FAL_HOSTS, OWN_HOST)
    async with serving(certificates) as port, tls.proxy_to(port.number) as proxy:
        led = {"HTTPS_PROXY": proxy, "SSL_CERT_FILE": str(certificates.authority)}
        program = PythonProgram(clean_environment() | led)
        try:
            yield port, program
        finally:
            await program.stop()


@pytest.fixture
async def python(python_stage: tuple[Port, PythonProgram]) -> AsyncIterator[Start]:
    """Starts a simulator with the given settings, to which the Python client's every call is led."""
    port, program = python_stage
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Client:
            return await stack.enter_async_context(simulating(port, f"https://{OWN_HOST}", program, settings))

        yield start


@pytest.fixture(scope="session")
def node_path() -> str:
    """Where `node` is, the client's packages in place; skips the test where that can't be had."""
    try:
        return node.install()
    except node.Unavailable as reason:
        pytest.skip(f"{reason}: the JavaScript client's exchanges were not run")


@pytest.fixture(scope="session")
async def javascript_stage(node_path: str) -> AsyncIterator[tuple[Port, NodeProgram]]:
    """A plain port, and the JavaScript client pointed at it."""
    async with serving() as port:
        yield port, NodeProgram(node_path, f"http://127.0.0.1:{port.number}", clean_environment())


@pytest.fixture
async def javascript(javascript_stage: tuple[Port, NodeProgram]) -> AsyncIterator[Start]:
    """Starts a simulator with the given settings, at which the JavaScript client is pointed."""
    port, program = javascript_stage
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Client:
            return await stack.enter_async_context(simulating(port, program.url, program, settings))

        yield start
