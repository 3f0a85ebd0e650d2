"""A Python client that openapi-python-client generates from docs/openapi.json: whole, and fit to be imported."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.openapi import document

BIN = Path(sys.executable).parent
USE = """
import inspect, pkgutil, importlib, sys
import generated
from generated import AuthenticatedClient
from generated.api.jobs import create_job, get_job, list_jobs
from generated.models import JobOrder, JobOrderInput, JobView

for found in pkgutil.walk_packages(generated.__path__, "generated."):
    importlib.import_module(found.name)
order = JobOrder(model="kling", input_=JobOrderInput.from_dict({"prompt": "x"}), max_cost="2.50")
assert order.to_dict()["max_cost"] == "2.50"
assert "JobView" in str(inspect.signature(create_job.sync).return_annotation)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the client is generated; what the generator can't make is an error."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "config.yml").write_text("post_hooks: []\n")
    output = ["--output-path", str(folder / "generated"), "--meta", "none", "--config", str(folder / "config.yml")]
    done = subprocess.run(
        [BIN / "openapi-python-client", "generate", "--path", document.PATH, *output, "--fail-on-warning"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_it_has_every_operation(folder: Path):
    made = {path.stem for path in (folder / "generated" / "api").rglob("*.py")}
    items: list[dict[str, Any]] = list(document.kept()["paths"].values())

    assert {operation["operationId"] for item in items for operation in item.values()} <= made | {"test_endpoint"}


def test_it_can_be_imported_and_used(folder: Path):
    # In a process of its own: a generated module may warn, and is nobody's here.
    done = subprocess.run(
        [sys.executable, "-c", USE],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
