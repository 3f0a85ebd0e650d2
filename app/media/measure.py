"""How long a delivered video really is, read from the file itself by a few range requests."""

import asyncio
from decimal import Decimal
from typing import Any, Final

import httpx
import structlog
from ssrfguard import SSRFGuardError

from app.media import mp4
from app.media.files import video_url

log = structlog.get_logger()

GONE: Final = frozenset({404, 410})
AS_IT_IS: Final = {"Accept-Encoding": "identity"}
LONGEST_S: Final = 10.0
"""fal waits fifteen seconds for a webhook's answer; measuring must leave room for the rest."""


class Unmeasured(Exception):
    """The file couldn't be read just now; that says nothing about its length."""


class Measure:
    """Measures videos by their URL, over a client that refuses private addresses."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def seconds(self, output: dict[str, Any] | None) -> Decimal | None:
        """
        The length of the video in a model's *output*; None if the file doesn't tell it or is gone, never 0.

        Raises Unmeasured if the file can't be read now; asking again may help.
        """
        url = video_url(output)
        if url is None:
            return None
        try:
            async with asyncio.timeout(LONGEST_S):
                return await self._read(url)
        except httpx.HTTPStatusError as error:
            if error.response.status_code in GONE:
                return None
            raise Unmeasured from error
        except (httpx.HTTPError, httpx.InvalidURL, SSRFGuardError, ValueError, TimeoutError) as error:
            log.warning("video_not_measured", why=type(error).__name__)
            raise Unmeasured from error

    async def _read(self, url: str) -> Decimal | None:
        head = await self._http.head(url, headers=AS_IT_IS)
        size = int(head.raise_for_status().headers.get("content-length", 0))

        async def read(offset: int, n: int) -> bytes:
            span = {"Range": f"bytes={offset}-{offset + n - 1}", **AS_IT_IS}
            async with self._http.stream("GET", url, headers=span) as answer:
                found = b""
                # A server that ignores ranges would send it all, and a hostile one without end.
                if answer.status_code == 206:
                    async for part in answer.aiter_raw():
                        found += part
                        if len(found) >= n:
                            break
                return found[:n]

        return await mp4.length_s(read, size)
