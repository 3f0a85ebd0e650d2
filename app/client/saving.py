"""A download that goes on where it broke off, and a file that is there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

import httpx

from app.client.errors import CallsheetError, Unreachable, refusal
from app.client.exchange import Ask, Patience, unreachable

READ_S: Final = 60.0


class Taking:
    """How far a download got, and whether it is tried on."""

    def __init__(self, retries: int) -> None:
        self.size = 0
        """Bytes taken so far."""
        self._patience = Patience(retries)
        self._tries = 0

    def headers(self) -> dict[str, str]:
        """How to ask for what is missing."""
        # A coded answer would be cut at another place than the file.
        plain = {"Accept-Encoding": "identity"}
        return {**plain, "Range": f"bytes={self.size}-"} if self.size else plain

    def goes_on(self, answer: httpx.Response) -> bool:
        """Whether *answer* is what is missing; else it must be read and told to `refused`."""
        if not self.size:
            return answer.status_code == 200
        begin = f"bytes {self.size}-"
        return answer.status_code == 206 and answer.headers.get("content-range", "").startswith(begin)

    def took(self, part: bytes) -> None:
        """Count *part*, which is kept."""
        self.size += len(part)
        self._tries = 0

    def refused(self, answer: httpx.Response) -> float:
        """Seconds to wait before the next try, after an *answer* that isn't the file."""
        trouble: CallsheetError = (
            refusal(answer) if answer.is_error else Unreachable(f"{answer.url} gave another part of the file.")
        )
        return self._again(trouble)

    def lost(self, why: Exception) -> float:
        """Seconds to wait before the next try, after the connection broke. Raises Unreachable once it is too much."""
        return self._again(unreachable(Ask("GET", "the file"), why))

    def _again(self, trouble: CallsheetError) -> float:
        self._tries += 1
        return self._patience.pause_s(self._tries, trouble)


@contextmanager
def target(to: str | os.PathLike[str] | BinaryIO) -> Iterator[BinaryIO]:
    """*to*, to be written: a stream as it is; a path beside itself, and put in place once all went well."""
    if not isinstance(to, str | os.PathLike):
        yield to
        return
    path = Path(to)
    beside = path.with_name(path.name + ".part")
    try:
        with beside.open("wb") as file:
            yield file
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
