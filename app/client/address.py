"""Where Callsheet is and how a client presents itself: an Ask as a request, for either kind of client."""

import os
from dataclasses import dataclass, field
from typing import Any, Final, Self

import httpx

from app.client.exchange import Ask

CONNECT_S: Final = 10.0
RETRIES: Final = 5
"""How often what isn't answered is sent again, unless told otherwise: over about a quarter of a minute."""


@dataclass(frozen=True, slots=True)
class Address:
    """A Callsheet and the key for it."""

    url: str
    key: str = field(repr=False)

    @classmethod
    def of(cls, url: str | None, key: str | None) -> Self:
        """*url* and *key*, or what CALLSHEET_URL and CALLSHEET_API_KEY say instead. Raises ValueError for neither."""
        url, key = url or os.environ.get("CALLSHEET_URL"), key or os.environ.get("CALLSHEET_API_KEY")
        if not url or not key:
            raise ValueError("Say which Callsheet and which key, or set CALLSHEET_URL and CALLSHEET_API_KEY.")
        return cls(url.rstrip("/"), key)

    def request(self, ask: Ask) -> dict[str, Any]:
        """*ask* for httpx, without its file."""
        # With each request and not with the client: a link to a file may lead to another host.
        headers = {"Authorization": f"Bearer {self.key}", **ask.headers}
        request = {
            "method": ask.method,
            "url": self.url + ask.path,
            "params": ask.params,
            "headers": headers,
            "timeout": httpx.Timeout(ask.read_s, connect=CONNECT_S),
        }
        return request if ask.body is None else {**request, "json": ask.body}
