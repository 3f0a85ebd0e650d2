"""The client needs nothing of the service, and says nothing that the service doesn't."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from app.client import results
from tests.openapi.document import kept

ROOT = Path(__file__).parents[2]
STANDS_ALONE = """
import sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked or name.startswith("app.") and not name.startswith("app.client"):
            raise ImportError(f"{name} is not there")

blocked = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Nothing())
import app.client
print(*sorted({name.split(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)))
"""
# httpx takes rich and click for its own command line where they are there.
SERVERS = "fastapi,starlette,sqlalchemy,pydantic,psycopg,structlog,standardwebhooks,nacl,cyclopts,rich,click"
HTTPX = {"httpx", "httpcore", "h11", "anyio", "certifi", "idna", "sniffio"}


def test_it_is_imported_without_what_the_service_needs():
    done = subprocess.run(
        [sys.executable, "-c", STANDS_ALONE, SERVERS], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    brought = {name for name in done.stdout.split() if not name.startswith("_")}
    assert brought <= HTTPX | {"app", "typing_extensions"}


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        (results.Job, "JobView"),
        (results.Cost, "Cost"),
        (results.Waiting, "Waiting"),
        (results.JobError, "JobError"),
        (results.Event, "EventView"),
        (results.Quote, "QuoteView"),
        (results.Balance, "BalanceView"),
        (results.File, "FileView"),
    ],
)
def test_its_shapes_are_those_of_the_document(shape, name):
    schema = kept()["components"]["schemas"][name]["properties"]
    own = {each.metadata.get("name", each.name): each for each in fields(shape)}

    assert own.keys() - schema.keys() <= {"raw", "type", "id"}
    for key, each in own.items():
        if key in schema and key != "errors":
            nullable = {"type": "null"} in schema[key].get("anyOf", ())
            assert ("None" in str(each.type)) == nullable, key


def test_a_newer_service_may_tell_more_and_an_older_one_less():
    example = kept()["components"]["schemas"]["JobView"]["examples"][0]
    less = {name: value for name, value in example.items() if name not in {"callback_url", "retry_of"}}

    job = results.job({**less, "status": "paused", "mood": "good"})

    assert (job.status, job.ended, job.callback_url, job.raw["mood"]) == ("paused", False, None, "good")
    assert "raw" not in repr(job)
