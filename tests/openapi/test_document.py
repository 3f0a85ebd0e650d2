"""docs/openapi.json is the document of this code, and true of itself."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from app.jobs.schemas import JobView
from tests.openapi import document
from tests.openapi.changes import breaks

ROOT = Path(__file__).parents[2]
METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def now() -> dict[str, Any]:
    return document.current()


def test_the_kept_document_is_that_of_the_code(now):
    broken = breaks(document.kept(), now)

    assert document.PATH.read_text(encoding="utf-8") == document.written(now), (
        "The API has changed: renew docs/openapi.json with `make openapi`."
        + "".join(f"\nThis would break callers: {line}" for line in broken)
    )


def test_it_is_the_same_in_every_process():
    code = "from tests.openapi import document; print(document.written(document.current()), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7", "CORS_ORIGINS": "https://example.com"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == document.PATH.read_text(encoding="utf-8")


@pytest.mark.parametrize(("meant", "code"), [("", 1), ("yes", 0)])
def test_a_break_is_written_down_only_if_it_is_meant(tmp_path, monkeypatch, capsys, meant, code):
    kept = tmp_path / "openapi.json"
    was = document.kept()
    was["paths"]["/v1/gone"] = {"get": {"operationId": "gone", "responses": {}}}
    kept.write_text(json.dumps(was))
    monkeypatch.setattr(document, "PATH", kept)
    monkeypatch.setenv("BREAKING", meant)

    try:
        document.main()
        left = 0
    except SystemExit:
        left = 1

    assert left == code
    assert ("GET /v1/gone: is gone" in capsys.readouterr().out) == bool(code)
    assert ("/v1/gone" in kept.read_text()) == bool(code)


def test_every_example_keeps_to_its_schema(now):
    tried = 0
    for where, schema, example in examples(now):
        faults = [
            error.message
            for error in jsonschema_rs.validator_for(
                {**schema, "components": now["components"]}, validate_formats=True
            ).iter_errors(example)
        ]
        assert faults == [], where
        tried += 1
    assert tried > 200


def examples(now: dict[str, Any]) -> Any:
    """Where, schema and value of each example of a JSON body or an answer, and of each shape."""
    for name, schema in now["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            yield name, {"$ref": f"#/components/schemas/{name}"}, example
    for path, item in now["paths"].items():
        for method, operation in item.items():
            for part in (operation.get("requestBody", {}), *operation["responses"].values()):
                for kind, content in part.get("content", {}).items():
                    for code, example in content.get("examples", {}).items() if "json" in kind else ():
                        yield f"{method} {path} {code}", content["schema"], example["value"]


@pytest.mark.parametrize(
    ("path", "told", "holds"),
    [
        ("/v1/events", None, True),
        ("/v1/events", {}, True),
        ("/v1/events", {"number": 3}, False),
        ("/v1/jobs/{job_id}/events", None, True),
        ("/v1/jobs/{job_id}/events", {}, False),
    ],
)
def test_a_stream_is_a_text_of_events_with_data_of_their_own_shape(now, path, told, holds):
    content = now["paths"][path]["get"]["responses"]["200"]["content"]["text/event-stream"]
    event = dict(line.split(": ", 1) for line in content["example"].splitlines() if line)
    data = json.loads(event["data"]) if told is None else told

    shape = content["itemSchema"]["properties"]["data"]["contentSchema"]

    assert jsonschema_rs.validator_for(content["itemSchema"]).is_valid(event)
    assert jsonschema_rs.validator_for({**shape, "components": now["components"]}).is_valid(data) == holds
    assert content["schema"] == {"type": "string"}


def test_names_are_for_callers(now):
    # Two shapes of one name would be told apart by where their code is.
    assert [name for name in now["components"]["schemas"] if not name.isalnum()] == []


def test_webhooks_tell_of_every_callback(now):
    assert set(now["webhooks"]) == set(now["components"]["schemas"]["EventType"]["enum"])
    for item in now["webhooks"].values():
        names = {parameter["name"] for parameter in item["post"]["parameters"]}
        assert names == {"webhook-id", "webhook-timestamp", "webhook-signature"}
        assert item["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].endswith("/Callback")


def test_each_callback_shows_an_example_of_its_own_kind(now):
    shape = jsonschema_rs.validator_for(
        {"$ref": "#/components/schemas/Callback", "components": now["components"]}, validate_formats=True
    )
    for kind, item in now["webhooks"].items():
        example = item["post"]["requestBody"]["content"]["application/json"]["example"]
        job = example["data"]["job"]
        assert [error.message for error in shape.iter_errors(example)] == []
        assert example["type"] == kind
        assert job["status"] == ("succeeded" if kind == "job.safe" else kind.removeprefix("job."))
        # Whatever is null in a callback is null in its example, and not left out.
        assert set(job) == set(JobView.model_fields)
        assert (job["safe_at"] is not None) == (kind == "job.safe")
        assert (job["output"] is not None) == (job["status"] == "succeeded")
        assert (job["waiting"] is None) == (job["finished_at"] is not None) == (job["cost"]["charged"] is not None)
        assert (job["error"] is not None) == (job["status"] in {"failed", "canceled", "expired"})
