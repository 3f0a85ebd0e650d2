"""One Postgres server: started, watched and stopped by the process that holds its data folder."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

from app.postgres import cluster, folder, identity
from app.postgres.binaries import PostgresError, find_bin_dir
from app.postgres.identity import Identity
from app.postgres.process import GuardedProcess

DEFAULTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        # What is accepted is kept: said here, so that no packager's default decides it.
        "fsync": "on",
        "full_page_writes": "on",
        "synchronous_commit": "on",
        "max_connections": "200",
        "shared_buffers": "128MB",
        # The details of a refused row can hold a prompt.
        "log_error_verbosity": "terse",
        "log_line_prefix": "%m [%p] ",
    }
)
LOG_KEPT_BYTES: Final = 10_000_000
LAST_WORDS_BYTES: Final = 3_000
# A fast shutdown ends with a checkpoint, which on a slow disk takes what it takes.
STOP_S: Final = 60.0
# After kill -9 of the postmaster its backends may still be on their way out.
STILL_LEAVING: Final = ("pre-existing shared memory block", 'lock file "postmaster.pid" already exists')


class PostgresFailed(PostgresError):
    """Postgres didn't start; its last words are in the message."""


class EmbeddedPostgres:
    """
    A Postgres on *data_dir*, reached through a Unix socket by this user alone, that never outlives us.

    *settings* are Postgres's own and add to `DEFAULTS`. A start may take *timeout_s*: after a crash Postgres
    first replays what it had promised, and that can be long. Any thread may start it. In a process forked
    without exec (multiprocessing's "fork") the copy of this object must be left alone.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        settings: Mapping[str, str] = MappingProxyType({}),
        bin_dir: Path | None = None,
        timeout_s: float = 300,
    ) -> None:
        self.data_dir = data_dir.resolve()
        self.url = ""
        self._cluster = self.data_dir / "cluster"
        self._log = self.data_dir / "postgres.log"
        self._log_start = 0
        self._settings = {**DEFAULTS, **settings}
        self._bin_dir = bin_dir
        self._timeout_s = timeout_s
        self._lock: int | None = None
        self._server: GuardedProcess | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def is_alive(self) -> bool:
        """Whether the server still runs."""
        return self._server is not None and self._server.is_alive()

    def start(self) -> str:
        """Start the server unless it runs, and return the URL of its database once it takes connections."""
        if self.is_alive():
            return self.url
        self.stop()
        self._lock = folder.hold(self.data_dir)
        try:
            self._start(time.monotonic() + self._timeout_s)
        except BaseException:
            self.stop()
            raise
        return self.url

    def stop(self) -> None:
        """Stop the server cleanly, or sweep up after one that died; does nothing a second time."""
        if self._server is not None:
            self._server.stop(STOP_S)
            self._server = None
        if self._lock is not None:
            (self.data_dir / "url").unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def _start(self, deadline: float) -> None:
        found = self._bin_dir or find_bin_dir()
        cluster.refuse_other_version(self._cluster, found)
        user = identity.choose(self._cluster)
        bin_dir = identity.readable_copy(found, user)
        self._turn_log()
        if self._cluster.exists():
            cluster.adopt(self._cluster, user)
        else:
            cluster.make(self._cluster, bin_dir, user, self._log, durable=self._settings["fsync"] == "on")
        folder.retire_leftover(self._cluster, deadline)
        sockets = folder.socket_folder(self._cluster, user)
        command = [
            str(bin_dir / "postgres"),
            "-D",
            cluster.address(self._cluster, user),
            *self._options(sockets),
        ]
        while not self._answers(command, user, deadline):
            time.sleep(0.1)
        _make_database(sockets)
        self.url = folder.url(sockets)
        (self.data_dir / "url").write_text(self.url)

    def _turn_log(self) -> None:
        if self._log.exists() and self._log.stat().st_size > LOG_KEPT_BYTES:
            self._log.replace(self._log.with_name("postgres.log.1"))
        self._log_start = self._log.stat().st_size if self._log.exists() else 0

    def _options(self, sockets: Path) -> list[str]:
        fixed = {
            "listen_addresses": "",
            "port": str(folder.PORT),
            # The dot is the cluster: to the server, it's never too long and never out of reach.
            "unix_socket_directories": "." if sockets == self._cluster else f'"{sockets}"',
            "unix_socket_permissions": "0700",
        }
        return [part for name, value in {**self._settings, **fixed}.items() for part in ("-c", f"{name}={value}")]

    def _answers(self, command: Sequence[str], user: Identity, deadline: float) -> bool:
        """Start the server and wait until it takes connections; False if it's worth another try."""
        self._server = GuardedProcess(command, self._cluster, user, self._log)
        while folder.postmaster_pid(self._cluster, ready=True) != self._server.pid:
            late = time.monotonic() > deadline
            if not self._server.is_alive():
                words = self._last_words()
                if any(sign in words for sign in STILL_LEAVING) and not late:
                    self._log_start = self._log.stat().st_size
                    self._server.stop(STOP_S)
                    return False
                raise PostgresFailed(f"Postgres didn't start on {self.data_dir}. Its last words:\n{words}")
            if late:
                raise PostgresFailed(
                    f"Postgres on {self.data_dir} wasn't ready after {self._timeout_s:g} s. Its last words:\n"
                    f"{self._last_words()}"
                )
            time.sleep(0.005)
        return True

    def _last_words(self) -> str:
        with self._log.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, size - LAST_WORDS_BYTES))
            return log.read().decode(errors="replace").strip()


def _make_database(sockets: Path) -> None:
    """Add our database if it isn't there; by connecting, this also shows that the server answers."""
    # Only whoever starts a server needs the driver this early.
    import psycopg  # noqa: PLC0415

    address = f"host='{sockets}' port={folder.PORT} user=postgres dbname=postgres"
    with psycopg.connect(address, autocommit=True) as connection:
        named = connection.execute("SELECT FROM pg_database WHERE datname = %s", [folder.DATABASE])
        if named.fetchone() is None:
            connection.execute(f"CREATE DATABASE {folder.DATABASE}")
