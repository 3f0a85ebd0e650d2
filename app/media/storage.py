"""Where files are kept: a folder of ours, or a bucket at S3, Google or Azure; one way to use them all."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

FAILURES: Final = (BaseError, OSError)
"""What a store raises when it can't be written or read just now."""

CHUNK: Final = 5 << 20
"""The smallest part that S3 takes; of these, two are under way at once."""
SHOWN: Final = 256 << 10


class Storage:
    """Files by path, in the store that *url* names or, without one, in *folder*."""

    def __init__(self, url: str | None, folder: Path) -> None:
        self._url = url
        self._folder = folder

    @cached_property
    def _store(self) -> Any:
        # Opened at its first use: a process that keeps no files needs no folder, and no credentials.
        if self._url is None:
            return LocalStore(self._folder.resolve(), mkdir=True)
        return from_url(self._url, mkdir=True) if self._url.startswith("file:") else from_url(self._url)

    @property
    def _root(self) -> Path | None:
        """The store's folder, where it is one."""
        return Path(self._store.prefix or "/") if isinstance(self._store, LocalStore) else None

    async def put(self, path: str, parts: AsyncIterator[bytes], content_type: str) -> None:
        """
        Keep *parts* under *path*; nothing is seen there until all of them are on disk.

        What *parts* raises passes through, and nothing is kept.
        """
        # Folders keep no content type; a bucket hands it out by itself.
        attributes: Any = None if self._root else {"Content-Type": content_type}
        await obstore.put_async(
            self._store,
            path,
            parts,
            attributes=attributes,
            use_multipart=True,
            chunk_size=CHUNK,
            max_concurrency=2,
        )
        if self._root:
            await asyncio.to_thread(_to_disk, self._root / path)

    async def size(self, path: str) -> int:
        """The bytes of the file at *path*; FileNotFoundError if there is none."""
        return int((await obstore.head_async(self._store, path))["size"])

    async def read(self, path: str, offset: int, length: int) -> bytes:
        """*length* bytes of the file at *path*, from *offset*; fewer at its end."""
        return bytes(await obstore.get_range_async(self._store, path, start=offset, length=length))

    async def stream(self, path: str, start: int, end: int) -> AsyncIterator[bytes]:
        """The bytes of the file at *path* from *start* up to, not with, *end*; FileNotFoundError if it isn't there."""
        found = await obstore.get_async(self._store, path, options={"range": (start, end)})

        async def parts() -> AsyncIterator[bytes]:
            async for part in found.stream(min_chunk_size=SHOWN):
                yield bytes(part)

        return parts()

    async def link(self, path: str, valid_s: float) -> str | None:
        """An address of the store's own for the file at *path*, that works for *valid_s*; None if it can't give one."""
        if isinstance(self._store, LocalStore) or not hasattr(self._store, "config"):
            return None
        return str(await obstore.sign_async(self._store, "GET", path, timedelta(seconds=valid_s)))

    async def drop(self, path: str) -> None:
        """Let go of the file at *path*, if it is there."""
        try:
            await obstore.delete_async(self._store, path)
        except FileNotFoundError:
            return

    async def clear(self, path: str) -> None:
        """Let go of the file at *path*, and of the halves of it that a death in the middle left."""
        await self.drop(path)
        if root := self._root:
            await asyncio.to_thread(_clear, root / path)

    async def sweep(self, folder: str, before: int) -> None:
        """
        Clear *folder* of what workers that died left in it, halves and wholes, under numbers *before* this one.

        Whoever sweeps may itself be late, and must not take what its successor keeps.
        """
        if root := self._root:
            await asyncio.to_thread(_sweep, root / folder, before)
            return
        async for found in obstore.list(self._store, f"{folder}/"):
            for file in found:
                if _is_before(file["path"].rpartition("/")[2], before):
                    await self.drop(file["path"])


def _to_disk(path: Path) -> None:
    """What is called safe must outlive a power cut: the file, and the folder that names it."""
    for target in (path, path.parent):
        handle = os.open(target, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sweep(folder: Path, before: int) -> None:
    # A folder's half-written files have names that obstore itself doesn't list.
    for file in folder.glob("*"):
        if _is_before(file.name, before):
            file.unlink(missing_ok=True)


def _is_before(name: str, number: int) -> bool:
    # obstore writes beside the file first, under its name with "#" and a number.
    own = name.partition("#")[0]
    return own.isdigit() and int(own) < number


def _clear(path: Path) -> None:
    for half in path.parent.glob(f"{path.name}#*"):
        half.unlink(missing_ok=True)
