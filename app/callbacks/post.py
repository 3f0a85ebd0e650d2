"""Posting one callback: guarded, bounded in time and size, and never led elsewhere."""

import asyncio
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import httpx
from ssrfguard import SSRFGuardError

from app.http import begun
from app.retry_after import retry_after_s

KEPT_BYTES: Final = 2048
"""How much of a receiver's answer is read, and kept for people to look at."""
HEADERS: Final = {
    "accept": "*/*",
    "content-type": "application/json",
    "user-agent": "Callsheet-Callbacks/1",
    "accept-encoding": "identity",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one try: a status code, or the kind of *error* that came before one."""

    status_code: int | None
    error: str | None
    body: str
    duration_ms: int
    retry_after_s: float | None = None

    @property
    def delivered(self) -> bool:
        """Whether the receiver has it."""
        return self.error is None

    @property
    def gone(self) -> bool:
        """Whether the receiver wants to hear no more."""
        return self.status_code == 410


async def post(http: httpx.AsyncClient, url: str, body: str, headers: dict[str, str], *, timeout_s: float) -> Answer:
    """
    What *url* answered to *body*; never raises for what a receiver does.

    *timeout_s* is for all of it: finding the address, connecting, sending and the answer's head. What of the answer's
    body comes late or beyond KEPT_BYTES isn't waited for.
    """
    since = time.monotonic()
    read = bytearray()
    status_code, error, wait_s = None, None, None
    try:
        # No step has a time of its own: a name that is slow to find may still lead to a quick receiver.
        request = httpx.Request(
            "POST", _read(url), content=body.encode(), headers=HEADERS | headers, extensions={"timeout": {}}
        )
        async with (
            asyncio.timeout(timeout_s),
            begun(http, request) as answer,
        ):
            status_code, error = answer.status_code, _verdict(answer)
            wait_s = retry_after_s(answer.headers.get("retry-after", ""))
            async for part in answer.aiter_raw():
                read += part[: KEPT_BYTES - len(read)]
                if len(read) >= KEPT_BYTES:
                    break
    except SSRFGuardError:
        error = "address_refused"
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as trouble:
        # A status that came is the answer, whatever became of the rest.
        error = error if status_code is not None else _kind(trouble)
    # Postgres takes no NUL in a text.
    text = bytes(read).decode("utf-8", "replace").replace("\x00", "\N{REPLACEMENT CHARACTER}")
    return Answer(status_code, error, text, round((time.monotonic() - since) * 1000), wait_s)


@lru_cache(maxsize=1000)
def _read(url: str) -> httpx.URL:
    """Most go where one went before, and reading an address takes a sixth of what the sending does."""
    return httpx.URL(url)


def _verdict(answer: httpx.Response) -> str | None:
    if answer.is_success:
        return None
    # Following it would tell a third party what was meant for this one.
    return "redirected" if 300 <= answer.status_code < 400 else "refused"


def _kind(trouble: Exception) -> str:
    if isinstance(trouble, TimeoutError | httpx.TimeoutException):
        return "timed_out"
    if isinstance(trouble, httpx.ConnectError):
        return "unreachable"
    return "broken_off"
