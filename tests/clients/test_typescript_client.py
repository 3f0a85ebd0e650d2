"""A TypeScript client, generated from docs/openapi.json as the README says: it compiles, and misuse of it doesn't."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.clients import node
from tests.openapi import document

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = ("example.ts", "misuse.ts", "tsconfig.json")


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Where `node` is, and a folder with the types of the document beside what uses them."""
    try:
        path = node.install(node.TS)
    except node.Unavailable as reason:
        pytest.skip(f"{reason}: no TypeScript client was generated")
    folder = tmp_path_factory.mktemp("typescript")
    (folder / "node_modules").symlink_to(node.TS / "node_modules")
    for name in SOURCES:
        shutil.copy(node.TS / name, folder)
    (options,) = re.findall(r"^npx openapi-typescript \S+ (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    done = run(path, folder, "openapi-typescript/bin/cli.js", str(document.PATH), *options.split())
    assert done.returncode == 0, done.stdout + done.stderr
    return path, folder


def run(path: str, folder: Path, script: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [path, str(folder / "node_modules" / script), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


def test_it_compiles_strictly_and_each_misuse_is_found(generated):
    path, folder = generated

    done = run(path, folder, "typescript/bin/tsc", "-p", ".", "--strict", "--noEmit")

    # Where a misuse compiles, tsc says that the error it was to expect is missing.
    assert done.returncode == 0, done.stdout
    assert (folder / "misuse.ts").read_text().count("@ts-expect-error") == 9


def test_the_lock_names_no_host():
    for folder in (node.JS, node.TS):
        lock = (folder / "package-lock.json").read_text()
        packages = [each for name, each in json.loads(lock)["packages"].items() if name]

        assert "resolved" not in lock
        assert all(each["integrity"].startswith("sha512-") for each in packages)
