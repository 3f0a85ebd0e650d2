"""
`callsheet …` as processes of their own: `fresh` as a user starts them, or forked from one that has imported everything.

A command takes a second to import what it needs and a tenth of that to do it; one of each family is started fresh.
"""

import atexit
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

from app.settings import Settings
from tests.faults.stage import ROOT, Nursery


class Done(NamedTuple):
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


@cache
def nursery() -> Nursery:
    """Where commands are forked, for as long as this process runs."""
    made = Nursery()
    atexit.register(made.close)
    return made


def fork(*arguments: str, cwd: Path, stdout: Path, stderr: Path, **given: str) -> int:
    """Start a command that adds to two files what it says; its process id in the nursery."""
    pid: int = nursery().ask(
        do="start",
        command="callsheet",
        arguments=arguments,
        inside=str(cwd),
        log=str(stdout),
        errors=str(stderr),
        environment=given,
    )
    return pid


def call(*arguments: str, cwd: Path, **given: str) -> Done:
    """Run a command to its end."""
    with tempfile.TemporaryDirectory() as folder:
        stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr")
        pid = fork(*arguments, cwd=cwd, stdout=stdout, stderr=stderr, **given)
        code: int = nursery().ask(do="wait", pid=pid)
        return Done(code, stdout.read_text(), stderr.read_text())


def fresh(*arguments: str, cwd: Path, **given: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, from the start of its Python."""
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        cwd=cwd,
        env=environment(**given),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def environment(**given: str) -> dict[str, str]:
    """Ours without settings, and *given*."""
    kept = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    return {**kept, "PYTHONPATH": str(ROOT), **given}
