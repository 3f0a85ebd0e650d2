"""
The step between Callsheet and Postgres: take on its user, tie its life to the owner's, turn into it.

Run as a script (`python -I -S child.py OWNER UID GID GUARD program …`), so it imports nothing of Callsheet
and starts in 20 ms. A process of its own, because the order matters: Linux forgets a death signal when a
process changes its user, which is when `subprocess` would have changed it for us.
"""

import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def main(owner: int, uid: int, gid: int, guard: str, command: list[str]) -> None:
    """Become *command*, run by *uid*; it gets a fast shutdown (SIGINT) when *owner* is gone."""
    # Loaded before the user changes, who may not be allowed to read Python's own files.
    prctl = load_prctl() if guard == "signal" else None
    os.umask(0o077)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if prctl is not None and prctl(PR_SET_PDEATHSIG, signal.SIGINT) == 0:
        # The owner may have died before the line above, and then nothing would ever tell us.
        if os.getppid() != owner:
            sys.exit("Callsheet ended before its Postgres had started")
    else:
        _watch_pipe(os.getpid())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.execv(command[0], command)  # noqa: S606


def load_prctl() -> Callable[[int, int], int] | None:
    """Linux's prctl, or None where there is none: macOS, or a Python built without ctypes."""
    try:
        import ctypes  # noqa: PLC0415

        prctl: Callable[[int, int], int] = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None
    return prctl


def _watch_pipe(postgres: int) -> None:
    """Leave a process behind that signals *postgres* when the owner's end of our stdin closes."""
    # Forked twice, so that it isn't a child of Postgres, which knows all of its own.
    if middle := os.fork():
        os.waitpid(middle, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    # A clean stop writes a byte first: then the number may already be someone else's.
    if not os.read(0, 1):
        os.kill(postgres, signal.SIGINT)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5:])
