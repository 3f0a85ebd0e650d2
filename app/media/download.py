"""Fetching a file from an address that others chose: guarded, in pieces, and never for ever."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import httpx
from ssrfguard import SSRFGuardError

AS_IT_IS: Final = {"Accept-Encoding": "identity"}
MOST_REDIRECTS: Final = 3
FEW: Final = 5
"""Tries at an address that says it has nothing; fal's store may need a moment after the verdict."""


class Unfetched(Exception):
    """
    The file couldn't be had.

    *most_tries* is how often trying makes sense; None is as long as the file may be there.
    """

    def __init__(self, code: str, detail: str, *, most_tries: int | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.most_tries = most_tries

    def told(self) -> dict[str, str]:
        """Why, as the file's row and its job tell it."""
        return {"code": self.code, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a file may be, and how slow its server."""

    size: int = 2_000_000_000
    whole_s: float = 1800.0
    silence_s: float = 20.0
    # A server may warm up, but then a file has to come at a pace that gets somewhere.
    grace_s: float = 30.0
    bytes_per_s: float = 10_000.0


class Download:
    """A file that is coming: its parts, once, and what is known of it when they are through."""

    def __init__(self, answer: httpx.Response, limits: Limits) -> None:
        self._answer = answer
        self._limits = limits
        self._hash = hashlib.sha256()
        self.size = 0
        self.content_type: str | None = answer.headers.get("content-type")
        announced = answer.headers.get("content-length", "")
        self._announced = int(announced) if announced.isdecimal() else None
        if self._announced is not None:
            self._check_size(self._announced)

    @property
    def sha256(self) -> bytes:
        """The hash of what has come."""
        return self._hash.digest()

    async def parts(self) -> AsyncIterator[bytes]:
        """The bytes as they come; raises Unfetched if they stop, dawdle, are too many or too few."""
        began = time.monotonic()
        coming = aiter(self._answer.aiter_raw())
        while True:
            try:
                # Each wait by itself: whoever drives this generator may do so from task to task.
                async with asyncio.timeout(self._limits.silence_s):
                    part = await anext(coming)
            except StopAsyncIteration:
                break
            except (TimeoutError, httpx.HTTPError) as error:
                raise _troubled(error) from error
            self.size += len(part)
            self._check_size(self.size)
            self._check_pace(time.monotonic() - began)
            self._hash.update(part)
            yield part
        if self.size == 0:
            raise Unfetched("empty", "The file has no content.")
        if self._announced is not None and self.size != self._announced:
            raise Unfetched("cut_off", f"{self.size} of {self._announced} bytes came.")

    def _check_size(self, size: int) -> None:
        if size > self._limits.size:
            detail = f"The file is larger than the {self._limits.size} bytes that OUTPUT_LIMIT_BYTES allows."
            raise Unfetched("too_large", detail, most_tries=1)

    def _check_pace(self, elapsed_s: float) -> None:
        limits = self._limits
        dawdles = elapsed_s > limits.grace_s and self.size / elapsed_s < limits.bytes_per_s
        if elapsed_s > limits.whole_s or dawdles:
            raise Unfetched("too_slow", f"{self.size} bytes came in {elapsed_s:.0f} s.")


@asynccontextmanager
async def download(http: httpx.AsyncClient, url: str, limits: Limits) -> AsyncIterator[Download]:
    """
    The file at *url*, begun; raises Unfetched if it can't be had.

    Redirects are followed by hand, few of them, so that the client's guard judges each address.
    """
    for _ in range(1 + MOST_REDIRECTS):
        try:
            async with asyncio.timeout(limits.silence_s):
                answer = await http.send(http.build_request("GET", url, headers=AS_IT_IS), stream=True)
        except SSRFGuardError as error:
            raise Unfetched("address_refused", "Its address is one we don't ask.", most_tries=FEW) from error
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, TimeoutError) as error:
            raise _troubled(error) from error
        try:
            if answer.has_redirect_location:
                url = _next(answer)
                continue
            _check(answer)
            yield Download(answer, limits)
            return
        finally:
            await answer.aclose()
    raise Unfetched("too_many_redirects", "Its address leads from place to place.", most_tries=FEW)


def _next(answer: httpx.Response) -> str:
    try:
        return str(answer.url.join(answer.headers["location"]))
    except (httpx.InvalidURL, ValueError) as error:
        raise Unfetched("address_refused", "It redirects to no address.", most_tries=FEW) from error


def _check(answer: httpx.Response) -> None:
    code = answer.status_code
    if code in {401, 403, 404, 410}:
        raise Unfetched("gone", f"Its server answers {code}.", most_tries=FEW)
    if code != 200:
        raise Unfetched("not_served", f"Its server answers {code}.")
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        raise Unfetched("encoded", "Its server sends it encoded, though asked not to.")


def _troubled(error: Exception) -> Unfetched:
    # Only its kind: a text may quote the address, and addresses may carry signatures.
    if isinstance(error, httpx.RemoteProtocolError):
        return Unfetched("cut_off", "Its server ended the connection before the file was through.")
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return Unfetched("too_slow", "Its server fell silent.")
    return Unfetched("unreachable", f"Its server can't be reached ({type(error).__name__}).")
