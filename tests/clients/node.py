"""
The JavaScript client's packages, installed once beside their lock.

The tests do this by themselves; `python -m tests.clients.node` does it ahead of them.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "js"
LOCK: Final = FOLDER / "package-lock.json"
STAMP: Final = FOLDER / "node_modules" / ".installed-from"
# Offline must be noticed in seconds: npm's own default is to try for minutes.
IMPATIENT: Final = ("--fetch-retries=1", "--fetch-retry-mintimeout=500", "--fetch-timeout=20000")


class Unavailable(RuntimeError):
    """The JavaScript client can't run here; the message says why."""


def install() -> str:
    """The path of `node`, with the client's packages in place; Unavailable when that can't be had."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None:
        raise Unavailable("Node is not installed")
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    # Held across the installation: parallel test processes share the folder.
    with LOCK.open("rb") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not STAMP.exists() or STAMP.read_text() != wanted:
            if npm is None:
                raise Unavailable("npm is not installed")
            _npm_ci(npm)
            STAMP.write_text(wanted)
    return node


def _npm_ci(npm: str) -> None:
    command = [npm, "ci", "--omit=dev", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", *IMPATIENT]
    try:
        done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=90, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable("npm could not fetch the client's packages within 90 seconds; is there a network?") from None
    if done.returncode != 0:
        why = next((line for line in done.stderr.splitlines() if line.startswith("npm error code")), "")
        raise Unavailable(
            f"npm could not fetch the client's packages, is there a network? ({why or 'no reason given'})"
        )


if __name__ == "__main__":
    try:
        install()
    except Unavailable as reason:
        sys.exit(str(reason))
