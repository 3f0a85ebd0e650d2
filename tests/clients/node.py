"""
Packages for Node, installed once beside their lock: fal's client in js/, what makes a client of ours in ts/.

The tests do this by themselves; `python -m tests.clients.node` does it ahead of them.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

JS: Final = Path(__file__).parent / "js"
TS: Final = Path(__file__).parent / "ts"
# Offline must be noticed in seconds: npm's own default is to try for minutes.
IMPATIENT: Final = ("--fetch-retries=1", "--fetch-retry-mintimeout=500", "--fetch-timeout=20000")


class Unavailable(RuntimeError):
    """What needs Node can't run here; the message says why."""


def install(folder: Path = JS) -> str:
    """The path of `node`, with the packages of *folder* in place; Unavailable when that can't be had."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None:
        raise Unavailable("Node is not installed")
    lock, stamp = folder / "package-lock.json", folder / "node_modules" / ".installed-from"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    # Held across the installation: parallel test processes share the folder.
    with lock.open("rb") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            if npm is None:
                raise Unavailable("npm is not installed")
            _npm_ci(npm, folder)
            stamp.write_text(wanted)
    return node


def _npm_ci(npm: str, folder: Path) -> None:
    command = [npm, "ci", "--omit=dev", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", *IMPATIENT]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=90, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable("npm could not fetch the packages within 90 seconds; is there a network?") from None
    if done.returncode != 0:
        why = next((line for line in done.stderr.splitlines() if line.startswith("npm error code")), "")
        raise Unavailable(f"npm could not fetch the packages, is there a network? ({why or 'no reason given'})")


if __name__ == "__main__":
    try:
        install(JS)
        install(TS)
    except Unavailable as reason:
        sys.exit(str(reason))
