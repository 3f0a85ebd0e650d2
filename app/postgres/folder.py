"""
The data folder: who holds it, what an earlier owner left in it, and where its server listens.

    cluster/         Postgres's own files
    postgres.log     what the server said; the one before is postgres.log.1
    owner.lock       held by the process that runs the server, and its pid
    url              where the server can be reached while it runs
"""

import fcntl
import hashlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote

from app.postgres.binaries import PostgresError
from app.postgres.identity import Identity

PORT: Final = 5432
DATABASE: Final = "callsheet"
# A socket's path may have 103 bytes on macOS and 107 on Linux, and its name takes 14: /.s.PGSQL.5432
LONGEST_SOCKET_FOLDER: Final = 88


class DataFolderInUse(PostgresError):
    """Another process runs a Postgres on this data folder."""

    def __init__(self, folder: Path, pid: int | None) -> None:
        self.folder, self.pid = folder, pid
        holder = f"process {pid}" if pid else "another process"
        super().__init__(f"The data folder {folder} is in use by {holder}: stop it, or choose another folder.")


class DataFolderUnusable(PostgresError):
    """This user can't work with the data folder."""


def hold(folder: Path) -> int:
    """Make this process the owner of *folder* until the returned descriptor is closed."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Never inherited across exec, so no program we start can hold the folder after us.
        descriptor = os.open(folder / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise DataFolderUnusable(f"The data folder {folder} can't be used: {problem.strerror}.") from problem
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 20)
        os.close(descriptor)
        raise DataFolderInUse(folder, int(holder) if holder.isdigit() else None) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def running_url(folder: Path) -> str | None:
    """How to reach the server that some process runs on *folder*, or None if there is none."""
    cluster = folder / "cluster"
    pid = postmaster_pid(cluster)
    if pid is None or not is_server(pid, cluster):
        return None
    try:
        return (folder / "url").read_text()
    except FileNotFoundError:
        return None


def retire_leftover(cluster: Path, deadline: float) -> None:
    """Wait until a server that an earlier owner left on *cluster* is gone; asks it to go, too."""
    pid = postmaster_pid(cluster)
    if pid is None:
        return
    if is_server(pid, cluster):
        os.kill(pid, signal.SIGINT)
    while is_server(pid, cluster):
        if time.monotonic() > deadline:
            raise DataFolderUnusable(f"An earlier Postgres (process {pid}) still works on {cluster.parent}.")
        time.sleep(0.01)
    # Postgres takes any process of that number for a rival: a zombie nobody has reaped, or, in a container
    # started anew, Callsheet itself. Backends that survived are found by their shared memory regardless.
    (cluster / "postmaster.pid").unlink(missing_ok=True)


def postmaster_pid(cluster: Path, *, ready: bool = False) -> int | None:
    """The pid noted by the last server on *cluster*; with *ready*, only once it takes connections."""
    try:
        lines = (cluster / "postmaster.pid").read_text().splitlines()
    except OSError:
        return None
    if ready and (len(lines) < 8 or lines[7].strip() != "ready"):
        return None
    return int(lines[0]) if lines and lines[0].isdigit() else None


def is_server(pid: int, cluster: Path) -> bool:
    """Whether *pid* is a living Postgres that works on *cluster*, neither a zombie nor a number used anew."""
    if sys.platform != "linux":
        return _is_server_by_ps(pid, cluster)
    process = Path("/proc", str(pid))
    try:
        name, _, facts = process.joinpath("stat").read_text().partition("(")[2].rpartition(") ")
        return name.startswith("postgres") and facts[0] not in "ZX" and (process / "cwd").samefile(cluster)
    except OSError:
        return False


def _is_server_by_ps(pid: int, cluster: Path) -> bool:
    answer = subprocess.run(  # noqa: S603
        ["/bin/ps", "-o", "state=,command=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return bool(answer) and answer[0] != "Z" and "postgres" in answer and str(cluster) in answer


def socket_folder(cluster: Path, server: Identity) -> Path:
    """
    Where the server puts its socket: in *cluster*, or in a short private folder if that path is too long.

    Whoever can open the socket is let in without a password, so it always lies in a 0700 folder.
    """
    if _fits(cluster):
        return cluster
    name = f"callsheet-{hashlib.sha256(f'{server.uid} {cluster}'.encode()).hexdigest()[:12]}"
    for parent in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):  # noqa: S108
        if not parent or not Path(parent).is_dir() or not server.can_reach(Path(parent)):
            continue
        private = Path(parent, name)
        if _fits(private) and _make_private(private, server):
            return private
    raise DataFolderUnusable(f"The path of {cluster.parent} is too long for a socket, and so are the temp folders'.")


def _fits(folder: Path) -> bool:
    # libpq reads a comma as the start of a second host.
    return len(os.fsencode(folder)) <= LONGEST_SOCKET_FOLDER and not set(str(folder)) & set(",\"'\\\n")


def _make_private(folder: Path, server: Identity) -> bool:
    try:
        folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(folder, server.uid, server.gid)
    except FileExistsError:
        pass
    except OSError:
        return False
    facts = folder.lstat()
    # Left by ourselves, or laid out by somebody else who waits for us to move in?
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == server.uid and stat.S_IMODE(facts.st_mode) == 0o700


def url(sockets: Path) -> str:
    """The address of the database behind the socket in *sockets*, as SQLAlchemy takes it."""
    # The port is said, because libpq would otherwise take PGPORT from the caller's environment.
    return f"postgresql+psycopg://postgres@/{DATABASE}?host={quote(str(sockets))}&port={PORT}"
