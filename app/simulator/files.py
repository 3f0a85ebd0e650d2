"""The CDN: results and uploads, their addresses, and how long each is there."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

from app.simulator.book import Book
from app.simulator.clock import Clock


class TooLarge(Exception):
    """More bytes came than an upload may have."""


@dataclass(frozen=True, slots=True)
class File:
    """What one address of the CDN leads to."""

    name: str
    """File name in the simulator's folder; several addresses may share one."""
    content_type: str
    size: int
    expires_at: float | None = None


@dataclass(slots=True)
class Parts:
    """A multipart upload that isn't complete yet."""

    path: str
    content_type: str
    kept_s: float | None
    names: dict[int, str] = field(default_factory=dict)


class Files:
    """Everything the CDN serves, in one folder; addresses are in the book."""

    def __init__(self, data_dir: Path | None, book: Book, clock: Clock, *, public_url: str, limit: int) -> None:
        self._passing = None if data_dir is not None else tempfile.mkdtemp(prefix="fal-simulator-")
        self.folder = (data_dir or Path(self._passing or "")) / "files"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._book = book
        self._clock = clock
        self._base = f"{public_url}/files/"
        self._limit = limit
        self._files = {path: File(**row) for path, row in book.files()}
        self._promised: dict[str, tuple[str, float | None]] = {}
        self._parts: dict[str, Parts] = {}

    def url(self, path: str) -> str:
        return self._base + quote(path)

    def path(self, seed: str, name: str) -> str:
        """An address as fal's are: `b/{8 hex}/{…name}`. One *seed* gives one address, also after a restart."""
        digest = hashlib.sha256(seed.encode()).hexdigest()
        return f"b/{digest[:8]}/{digest[8:24]}_{name}"

    def get(self, path: str) -> File | None:
        """The file at *path*, unless it never was or isn't any more."""
        file = self._files.get(path)
        if file is None or (file.expires_at is not None and self._clock.now() >= file.expires_at):
            return None
        return file

    def behind(self, url: Any) -> tuple[bool, File | None]:
        """Whether *url* is one of ours, and the file it leads to."""
        if not isinstance(url, str) or not url.startswith(self._base):
            return False, None
        return True, self.get(urlsplit(url).path.partition("/files/")[2])

    def put(self, path: str, source: Path, content_type: str, *, size: int, kept_s: float | None) -> File:
        """Let *path* lead to *source*, a file in the folder."""
        expires_at = None if kept_s is None else self._clock.now() + kept_s
        return self._list(path, File(source.name, content_type, size, expires_at))

    def drop(self, path: str) -> bool:
        """Take *path* off the CDN for good; False if it wasn't there."""
        file = self.get(path)
        if file is not None:
            self._list(path, replace(file, expires_at=0.0))
        return file is not None

    def _list(self, path: str, file: File) -> File:
        self._files[path] = file
        self._book.write_file(path, asdict(file))
        return file

    async def receive(self, chunks: AsyncIterator[bytes]) -> tuple[Path, int, str]:
        """Write *chunks* to a new file: its path, its size and its MD5. Raises TooLarge."""
        target = self.folder / f"upload-{uuid4().hex}"
        size, digest = 0, hashlib.md5(usedforsecurity=False)
        try:
            # Written in the loop: chunks are small, and the page cache takes them in microseconds.
            with target.open("wb") as out:
                async for chunk in chunks:
                    size += len(chunk)
                    self._check(size)
                    digest.update(chunk)
                    out.write(chunk)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        return target, size, digest.hexdigest()

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise TooLarge

    def promise(self, path: str, content_type: str, kept_s: float | None) -> None:
        """Expect a later PUT at *path*."""
        self._promised[path] = (content_type, kept_s)

    def promised(self, path: str) -> tuple[str, float | None] | None:
        return self._promised.get(path)

    def begin_parts(self, upload_id: str, path: str, content_type: str, kept_s: float | None) -> None:
        self._parts[upload_id] = Parts(path, content_type, kept_s)

    def parts(self, upload_id: str) -> Parts | None:
        return self._parts.get(upload_id)

    def join_parts(self, upload_id: str, numbers: list[int]) -> bool:
        """Make one file of the parts *numbers*, in the order of numbers whatever order they're listed in."""
        parts = self._parts.get(upload_id)
        if parts is None or not numbers or any(number not in parts.names for number in numbers):
            return False
        target = self.folder / f"upload-{uuid4().hex}"
        with target.open("wb") as out:
            for number in sorted(numbers):
                piece = self.folder / parts.names[number]
                with piece.open("rb") as source:
                    shutil.copyfileobj(source, out)
        size = target.stat().st_size
        self.put(parts.path, target, parts.content_type, size=size, kept_s=parts.kept_s)
        for name in parts.names.values():
            (self.folder / name).unlink(missing_ok=True)
        del self._parts[upload_id]
        return True

    def close(self) -> None:
        if self._passing is not None:
            shutil.rmtree(self._passing, ignore_errors=True)


def kept_s(header: str | None) -> float | None:
    """Seconds that a lifecycle header lets a file live, or None for ever."""
    if not header:
        return None
    try:
        seconds = json.loads(header).get("expiration_duration_seconds")
        return None if seconds is None else float(seconds)
    except (ValueError, AttributeError, TypeError):
        return None


def safe_name(name: str | None, content_type: str) -> str:
    """*name* without folders, or one that fits *content_type*."""
    base = os.path.basename((name or "").replace("\\", "/")).strip(". ")  # noqa: PTH119 - it isn't a path here
    return base or f"{uuid4().hex}.{content_type.partition('/')[2].partition(';')[0] or 'bin'}"
