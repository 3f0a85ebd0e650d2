"""The OpenAPI document: complete, and true of every answer the service gives."""

import os
import threading
from contextlib import suppress
from itertools import islice
from typing import Any

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.main import create_app
from app.settings import Settings
from tests import factories as make
from tests import signing

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
# Of each operation, valid and invalid; EXAMPLES=500 looks for as long as a coffee takes.
EXAMPLES = int(os.environ.get("EXAMPLES", "30"))
# So many tests look at an equal share of the operations each, side by side.
PARTS = 4
METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture
async def served(db, database_url: str) -> Any:
    """The service on a socket of its own, a key for it, and a job to look at."""
    caller, key = await make.make_key(db)
    intent = await make.taken(db, caller)
    await make.submit(db, intent)
    await make.report(db, intent, make.success())
    fal = httpx.MockTransport(lambda _: httpx.Response(200, json=signing.JWKS))
    chosen = Settings.read(database_url=database_url, fal_key="test", _env_file=None)
    config = uvicorn.Config(create_app(chosen, fal_transport=fal), port=0, log_config=None, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.005)
        assert thread.is_alive()
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}", key
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_no_answer_is_undocumented(served, mode, part):
    url, key = served
    document = schemathesis.openapi.from_url(f"{url}/openapi.json")
    for found in islice(document.get_all_operations(), part, None, PARTS):
        assert isinstance(found, Ok)
        operation = found.ok()
        if operation.path == "/v1/events":
            continue  # a stream without end; tests/jobs/test_stream_all.py has its answers
        try:
            cases = operation.as_strategy(generation_mode=mode)
        except Unsatisfiable:
            continue

        @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=cases)
        def every(case: schemathesis.Case[Any]) -> None:
            case.call_and_validate(headers={"Authorization": f"Bearer {key}"}, checks=CHECKS)

        with suppress(Unsatisfiable):  # a call without parameters has no wrong ones
            every()


@pytest.fixture
async def operations(api) -> list[tuple[str, str, dict[str, Any]]]:
    found = (await api.get("/openapi.json")).json()["paths"]
    return [
        (method, path, operation)
        for path, item in found.items()
        for method, operation in item.items()
        if method in METHODS
    ]


async def test_every_operation_is_told_in_full(operations):
    assert len(operations) >= 12
    for method, path, operation in operations:
        name = f"{method} {path}"
        assert operation.get("summary"), name
        assert operation.get("description"), name
        assert len(operation["tags"]) == 1, name
        assert operation["operationId"].islower(), name
        assert any(code.startswith(("2", "3")) for code in operation["responses"]), name


async def test_every_error_has_an_example_and_problem_json(operations):
    for method, path, operation in operations:
        for code, response in operation["responses"].items():
            if code.startswith(("2", "3")):
                continue
            content = response["content"]
            assert set(content) == {"application/problem+json"}, (method, path, code)
            assert content["application/problem+json"]["examples"], (method, path, code)


async def test_every_body_and_answer_has_an_example(api, operations):
    schemas = (await api.get("/openapi.json")).json()["components"]["schemas"]

    for method, path, operation in operations:
        bodies = [operation["requestBody"]] if "requestBody" in operation else []
        answers = [answer for code, answer in operation["responses"].items() if code.startswith("2")]
        for part in [*bodies, *answers]:
            for content in part.get("content", {}).values():
                shape = schemas.get(content["schema"].get("$ref", "").rsplit("/", 1)[-1], {})
                assert shape.get("examples") or "example" in content, (method, path)


async def test_operation_ids_are_stable(operations):
    assert sorted(operation["operationId"] for _, _, operation in operations) == [
        "cancel_job",
        "cancel_jobs",
        "create_endpoint",
        "create_file",
        "create_job",
        "create_jobs",
        "create_key",
        "create_quote",
        "create_token",
        "delete_endpoint",
        "delete_file",
        "dismiss_incident",
        "get_balance",
        "get_callback_secret",
        "get_delivery",
        "get_endpoint",
        "get_file",
        "get_file_content",
        "get_job",
        "get_job_events_link",
        "get_job_output",
        "get_model",
        "get_overview",
        "list_audit_entries",
        "list_deliveries",
        "list_endpoints",
        "list_files",
        "list_incidents",
        "list_jobs",
        "list_keys",
        "list_ledger_entries",
        "list_models",
        "list_tokens",
        "livez",
        "readyz",
        "receive_fal_webhook",
        "replay_deliveries",
        "replay_delivery",
        "retry_job",
        "retry_jobs",
        "revoke_key",
        "revoke_token",
        "rotate_callback_secret",
        "rotate_endpoint_secret",
        "rotate_key",
        "stream_events",
        "stream_job_events",
        "test_endpoint",
        "update_endpoint",
        "verify",
    ]
