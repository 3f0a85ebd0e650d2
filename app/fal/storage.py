"""fal's own file store: where a file goes that fal can't fetch from us."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Final

import httpx

from app.fal import messages
from app.fal.client import Unanswered, ask

LONGEST_S: Final = 900.0


class FalStorage:
    """One fal account's uploads."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        files_http: httpx.AsyncClient,
        *,
        rest_url: str,
        key: str,
        timeout_s: float = 30.0,
    ) -> None:
        """Asks over *http*; *files_http* carries the files: it streams, and guards against where it is sent."""
        self._http = http
        self._files_http = files_http
        self._url = f"{rest_url}/storage/upload/initiate?storage_type=fal-cdn-v3"
        self._auth = {"Authorization": f"Key {key}"}
        self._timeout_s = timeout_s

    async def upload(self, parts: AsyncIterator[bytes], *, size: int, content_type: str, name: str, kept_s: int) -> str:
        """
        The address at fal of a file just uploaded, there for *kept_s* seconds. Raises Unanswered.

        Two calls, as fal's JavaScript client makes them; the second carries no key.
        """
        told = json.dumps({"content_type": content_type, "file_name": name}).encode()
        lifecycle = json.dumps({"expiration_duration_seconds": kept_s})
        headers = {**self._auth, "Content-Type": "application/json", "X-Fal-Object-Lifecycle": lifecycle}
        answer = await ask(self._http, "POST", self._url, headers=headers, timeout_s=self._timeout_s, content=told)
        match messages.read(answer.content):
            case {"upload_url": str(upload_url), "file_url": str(file_url)} if answer.status_code == 200:
                await self._put(upload_url, parts, size, content_type)
                return file_url
        raise Unanswered(f"status code {answer.status_code}")

    async def _put(self, url: str, parts: AsyncIterator[bytes], size: int, content_type: str) -> None:
        headers = {"Content-Type": content_type, "Content-Length": str(size)}
        try:
            async with asyncio.timeout(LONGEST_S):
                answer = await self._files_http.put(url, content=parts, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise Unanswered(type(error).__name__) from error
        if not answer.is_success:
            raise Unanswered(f"status code {answer.status_code}")
