"""A program that ends when Callsheet does, however Callsheet ends."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from app.postgres import child
from app.postgres.identity import Identity

# Linux tells a child of its parent's death by itself; elsewhere a tiny process waits at the end of a pipe.
GUARD: Final = "signal" if sys.platform == "linux" else "pipe"
# What a program needs to find its libraries. It doesn't need our secrets, nor libpq's PG* variables.
ENVIRONMENT: Final = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


class GuardedProcess:
    """
    *command*, run by *user* in the folder *inside*; what it says is added to *log*.

    Linux sends the death signal when the *thread* that forked ends, not the process. So a thread of its own
    forks, and stays until the program is stopped. It's a daemon thread: Callsheet need not wait for it.
    """

    def __init__(self, command: Sequence[str], inside: Path, user: Identity, log: Path) -> None:
        self._command, self._inside, self._user, self._log = command, inside, user, log
        self._released = threading.Event()
        self._started = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._problem: OSError | None = None
        threading.Thread(target=self._keep, name="postgres-keeper", daemon=True).start()
        self._started.wait()
        if self._problem is not None:
            raise self._problem

    @property
    def pid(self) -> int:
        """The number of the program, the same before and after it turned from Python into Postgres."""
        return self._running.pid

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._running.poll() is None

    def wait(self, timeout_s: float) -> int | None:
        """Its exit status, or None if it takes longer than *timeout_s*."""
        try:
            return self._running.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, patience_s: float) -> None:
        """End it: politely (for Postgres, a fast shutdown), less so after *patience_s*, then by force."""
        process = self._running
        for ask, wait_s in ((signal.SIGINT, patience_s), (signal.SIGQUIT, 5.0), (signal.SIGKILL, None)):
            # Says whether it has ended by itself, too, so that no signal goes to a number used anew.
            process.send_signal(ask)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(wait_s)
                break
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                # Tells the watcher at the other end, if there is one, that all is done.
                process.stdin.write(b".")
                process.stdin.flush()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        self._released.set()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("never started")
        return self._process

    def _keep(self) -> None:
        user = self._user
        launch = [
            sys.executable,
            "-I",
            "-S",
            child.__file__,
            str(os.getpid()),
            str(user.uid),
            str(user.gid),
            GUARD,
        ]
        try:
            log = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                self._process = subprocess.Popen(  # noqa: S603
                    [*launch, *self._command],
                    cwd=self._inside,
                    env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ} | {"LC_ALL": "C"},
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    # Ctrl-C is for Callsheet, which finishes its work before it stops the database.
                    start_new_session=True,
                )
            finally:
                os.close(log)
        except OSError as problem:
            self._problem = problem
        finally:
            self._started.set()
        self._released.wait()
