"""Postgres's own files: made once, whole or not at all, and only opened by the version that wrote them."""

import os
import shutil
from pathlib import Path
from typing import Final

from app.postgres import identity
from app.postgres.binaries import PostgresError, major_version
from app.postgres.folder import DataFolderUnusable
from app.postgres.identity import Identity
from app.postgres.process import GuardedProcess

INITDB_S: Final = 300.0
INSIDE: Final = Path("/proc/self/cwd")


class WrongPostgresVersion(PostgresError):
    """The data folder was written by another major version of Postgres."""


class ClusterNotMade(PostgresError):
    """Postgres couldn't lay out its files; the log says why."""


def refuse_other_version(cluster: Path, bin_dir: Path) -> None:
    """Raise unless the Postgres in *bin_dir* is of the version that wrote *cluster*."""
    try:
        written_by = (cluster / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        return
    ours = major_version(bin_dir)
    if written_by != str(ours):
        raise WrongPostgresVersion(
            f"The data folder {cluster.parent} was written by Postgres {written_by}, "
            f"but the one in {bin_dir} is {ours}: "
            f"install Postgres {written_by}, or move the data over with its pg_dump."
        )


def adopt(cluster: Path, user: Identity) -> None:
    """See to it that *cluster* belongs to the *user* who runs the server."""
    owner = cluster.stat().st_uid
    if os.geteuid() not in {0, owner}:
        raise DataFolderUnusable(f"The data folder {cluster.parent} belongs to user {owner}, not to you.")
    identity.give(cluster, user)


def make(cluster: Path, bin_dir: Path, user: Identity, log: Path, *, durable: bool) -> None:
    """Lay out *cluster* beside its place and move it there whole: a start cut short leaves no half of one."""
    fresh = cluster.with_name("cluster.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    identity.give(fresh, user)
    options = [
        "--username=postgres",
        "--auth=trust",
        "--encoding=UTF8",
        "--data-checksums",
        "--no-instructions",
    ]
    if (major_version(bin_dir) or 0) >= 17:
        # Sorts alike on every machine: an index made with one libc's rules is wrong under another's.
        options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    if not durable:
        options.append("--no-sync")
    command = [str(bin_dir / "initdb"), "-D", address(fresh, user), "--locale=C", *options]
    process = GuardedProcess(command, fresh, user, log)
    try:
        if process.wait(INITDB_S) != 0:
            raise ClusterNotMade(f"Postgres couldn't lay out its files in {cluster.parent}: see {log}.")
    finally:
        process.stop(patience_s=1)
    fresh.rename(cluster)
    _sync(cluster.parent)


def address(cluster: Path, user: Identity) -> str:
    """
    The name by which the server, started inside of *cluster*, finds it.

    As root, the data folder often lies where the server's user may not go, such as /root. Moving the data
    elsewhere would lose it with the container whose volume it was meant for. But Linux knows the place where
    a process stands by a name that needs no way in.
    """
    if user.can_reach(cluster):
        return str(cluster)
    if INSIDE.exists():
        return str(INSIDE)
    raise DataFolderUnusable(
        f"Postgres won't run as root, and the user who runs it instead can't reach {cluster.parent}: "
        "choose a folder that everyone can enter, or start Callsheet as a normal user."
    )


def _sync(folder: Path) -> None:
    # Else a power cut could take back the move, and the next start would clear away what looks half made.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
