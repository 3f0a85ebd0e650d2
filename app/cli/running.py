"""`up.json`: where a running `callsheet up` is, and the key it made; how commands and scripts find it."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from app.cli.trouble import Exit, Trouble


@dataclass(frozen=True, slots=True)
class Running:
    """A running Callsheet."""

    url: str
    api_key: str
    simulator_url: str | None
    pid: int

    def write(self, data: Path) -> None:
        """Tell commands that look into *data*; readable by its owner only, for it holds a key."""
        write_private(data / "up.json", json.dumps(asdict(self), indent=2) + "\n")

    @staticmethod
    def forget(data: Path) -> None:
        """None runs in *data*, if it was this process or one that is gone: killed, it could not say so."""
        path = data / "up.json"
        try:
            pid = int(json.loads(path.read_text(encoding="utf-8"))["pid"])
        except (OSError, ValueError, TypeError, KeyError):
            pid = 0
        if pid in {0, os.getpid()} or not _lives(pid):
            path.unlink(missing_ok=True)

    @classmethod
    def find(cls, data: Path) -> Self:
        """The one that CALLSHEET_URL and CALLSHEET_API_KEY name, or the one that runs in *data*."""
        url, key = os.environ.get("CALLSHEET_URL"), os.environ.get("CALLSHEET_API_KEY")
        if url and key:
            return cls(url.rstrip("/"), key, None, 0)
        try:
            return cls(**json.loads((data / "up.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            raise Trouble(
                f"No Callsheet runs in {data}. Start one with `callsheet up`, or set"
                " CALLSHEET_URL and CALLSHEET_API_KEY.",
                Exit.UNREACHABLE,
            ) from None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_private(path: Path, text: str) -> None:
    """Write *text* to *path*, whole or not at all, for its owner's eyes only."""
    beside = path.with_suffix(".new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    beside.replace(path)
