"""A file that is coming from a caller: told by its first bytes, counted, hashed, and never for ever."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from typing import Final

from app.errors import AppError, BodyTooLarge
from app.files.kinds import ENDINGS, HEAD, kind
from app.media.download import Limits

TAKEN: Final = f"Images, videos and sounds are: {', '.join(sorted(end[1:] for end in ENDINGS.values()))}."


class UnknownKind(AppError):
    """The file isn't of a kind that models take; that is told from its bytes, not from its name."""

    status, code = 415, "unsupported_file"


class TooSlow(AppError):
    """The file came too slowly, or not at all."""

    status, code = 408, "upload_too_slow"


class EmptyFile(AppError):
    """There is no file in this request; send its bytes as the body, or as the one file of a form."""

    status, code = 422, "no_file"


class Incoming:
    """A file's parts, once, and what is known of it when they are through."""

    def __init__(self, parts: AsyncIterator[bytes], limits: Limits) -> None:
        self._parts = parts
        self._limits = limits
        self._hash = hashlib.sha256()
        self.size = 0
        self.content_type: str | None = None

    @property
    def sha256(self) -> bytes:
        """The hash of what has come."""
        return self._hash.digest()

    async def checked(self) -> AsyncIterator[bytes]:
        """The bytes as they come. Raises UnknownKind, TooSlow, EmptyFile or BodyTooLarge."""
        head = b""
        async for part in self._timely():
            self.size += len(part)
            if self.size > self._limits.size:
                detail = f"A file may have up to {self._limits.size:,} bytes."
                raise BodyTooLarge(detail, headers={"Connection": "close"})
            self._hash.update(part)
            if self.content_type is not None:
                yield part
                continue
            # Nothing is written before it is known what it is.
            head += part
            if len(head) >= HEAD:
                self.content_type = _known(head)
                yield head
        if self.size == 0:
            raise EmptyFile
        if self.content_type is None:
            self.content_type = _known(head)
            yield head

    async def _timely(self) -> AsyncIterator[bytes]:
        began = time.monotonic()
        coming = aiter(self._parts)
        while True:
            try:
                async with asyncio.timeout(self._limits.silence_s):
                    part = await anext(coming)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise _too_slow(f"Nothing came for {self._limits.silence_s:g} s.") from None
            yield part
            elapsed_s = time.monotonic() - began
            dawdles = elapsed_s > self._limits.grace_s and self.size / elapsed_s < self._limits.bytes_per_s
            if dawdles or elapsed_s > self._limits.whole_s:
                raise _too_slow(f"{self.size:,} bytes came in {elapsed_s:.0f} s.")


def _known(head: bytes) -> str:
    found = kind(head)
    if found is None:
        raise UnknownKind(TAKEN, headers={"Connection": "close"})
    return found


def _too_slow(detail: str) -> TooSlow:
    return TooSlow(detail, headers={"Connection": "close"})
