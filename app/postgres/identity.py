"""
Which user runs Postgres, and what that user can reach.

Postgres refuses to run as root, and in a container Callsheet often is root. Then the server runs as a user
that already exists. No user is added, and nothing outside Callsheet's own folders changes its mode.
"""

import hashlib
import os
import pwd
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.postgres.binaries import PostgresError

# `nobody` is in every image. A real `postgres` user is better where there is one: it has no other tenants.
STAND_INS: Final = ("postgres", "nobody")
COPY_HOME: Final = Path("/var/cache/callsheet")


@dataclass(frozen=True)
class Identity:
    """The user and group that run the server."""

    uid: int
    gid: int

    def can_reach(self, path: Path) -> bool:
        """Whether this user may pass through every folder above *path* and enter or read *path*."""
        path = path.resolve()
        return self._may(path, stat.S_IROTH | stat.S_IXOTH if path.is_dir() else stat.S_IROTH) and all(
            self._may(folder, stat.S_IXOTH) for folder in path.parents
        )

    def _may(self, path: Path, wanted: int) -> bool:
        facts = path.stat()
        shift = 6 if facts.st_uid == self.uid else 3 if facts.st_gid == self.gid else 0
        return (facts.st_mode >> shift) & wanted == wanted


def choose(cluster: Path) -> Identity:
    """Ourselves; as root, the user the *cluster* already belongs to, else one who can stand in."""
    if os.geteuid() != 0:
        return Identity(os.geteuid(), os.getegid())
    if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
        return Identity(owner.st_uid, owner.st_gid)
    for name in STAND_INS:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        return Identity(user.pw_uid, user.pw_gid)
    raise PostgresError(
        "Postgres won't run as root, and there is no user `postgres` or `nobody` to run it as: "
        "start Callsheet as a normal user, or set DATABASE_URL."
    )


def give(path: Path, to: Identity) -> None:
    """Hand *path*, a folder of ours, and all in it to the user that runs the server."""
    if os.geteuid() != 0 or path.stat().st_uid == to.uid:
        return
    for folder, _, files in os.walk(path):
        os.chown(folder, to.uid, to.gid)
        for name in files:
            os.chown(Path(folder, name), to.uid, to.gid, follow_symlinks=False)


def readable_copy(bin_dir: Path, reader: Identity, home: Path = COPY_HOME) -> Path:
    """*bin_dir* itself if *reader* can use it, else a copy made once where everyone can (root only)."""
    if reader.can_reach(bin_dir / "postgres"):
        return bin_dir
    prefix = bin_dir.resolve().parent
    package = prefix.parent
    # A wheel installed anew has another time stamp, and gets a copy of its own.
    name = hashlib.sha256(f"{prefix}{(bin_dir / 'postgres').stat().st_mtime_ns}".encode()).hexdigest()[:16]
    home = _open_home(home, reader)
    if not (home / name).exists():
        fresh = Path(tempfile.mkdtemp(dir=home))
        fresh.chmod(0o755)
        for part in ("bin", "lib", "share"):
            shutil.copytree(prefix / part, fresh / package.name / prefix.name / part)
        # auditwheel puts libpq beside the package and points initdb at it by a relative path.
        if (libs := package.with_name(f"{package.name}.libs")).is_dir():
            shutil.copytree(libs, fresh / libs.name)
        _open_to_readers(fresh)
        try:
            fresh.rename(home / name)
        except OSError:
            # Another Callsheet was quicker; its copy is the same.
            shutil.rmtree(fresh)
    return home / name / package.name / prefix.name / "bin"


def _open_home(wished: Path, reader: Identity) -> Path:
    """*wished*, or a folder in the system's temp folder if that can't be written (a read-only container)."""
    for home in (wished, Path(tempfile.gettempdir(), "callsheet-binaries")):
        try:
            home.mkdir(parents=True)
            home.chmod(0o755)  # whatever our umask
        except FileExistsError:
            pass
        except OSError:
            continue
        facts = home.lstat()
        # In a temp folder somebody else may have made it first, to have us run programs of theirs.
        if stat.S_ISDIR(facts.st_mode) and facts.st_uid == 0 and not facts.st_mode & 0o022 and reader.can_reach(home):
            return home
    raise PostgresError(
        f"Postgres won't run as root, and {wished} can't hold a copy that another user could run: "
        "start Callsheet as a normal user, or set DATABASE_URL."
    )


def _open_to_readers(top: Path) -> None:
    """Let everyone read the copy, whatever umask the wheel was installed with."""
    for folder, _, files in os.walk(top):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder, name)
            path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
