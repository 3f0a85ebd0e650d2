"""fal's Platform API: which requests there were."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

import httpx

from app.fal import messages
from app.fal.client import Unanswered, ask
from app.fal.messages import Sent

PAGE: Final = 100
MOST_PAGES: Final = 100


class Platform:
    """One fal account's view of its own history."""

    def __init__(self, http: httpx.AsyncClient, *, api_url: str, key: str, timeout_s: float = 30.0) -> None:
        self._http = http
        self._url = f"{api_url}/models/requests/by-endpoint"
        self._auth = {"Authorization": f"Key {key}"}
        self._timeout_s = timeout_s

    async def requests(
        self, endpoint: str, *, start: datetime, end: datetime, keep: Callable[[Sent], bool]
    ) -> list[Sent]:
        """
        Those of the account's requests to *endpoint* from *start* to *end* to *keep*. Raises Unanswered.

        As far as fal lists them; but all or nothing: a part of the list would make one of two equal requests
        look like the only one. What isn't kept is forgotten page by page, for an hour of a busy account is long.
        """
        wanted = {
            "endpoint_id": endpoint,
            "start": start.isoformat(),
            "end": end.isoformat(),
            "expand": "payloads",
            "limit": str(PAGE),
        }
        found: dict[str, Sent] = {}
        for _ in range(MOST_PAGES):
            items, cursor = await self._page(wanted)
            found |= {item.request_id: item for item in items if keep(item)}
            if cursor is None:
                return list(found.values())
            wanted["cursor"] = cursor
        raise Unanswered("the list is too long")

    async def _page(self, wanted: dict[str, str]) -> tuple[list[Sent], str | None]:
        answer = await ask(self._http, "GET", self._url, params=wanted, headers=self._auth, timeout_s=self._timeout_s)
        match messages.read(answer.content):
            case {"items": list(items), "has_more": bool(more), **rest} if answer.status_code == 200:
                found = [request for item in items if (request := messages.sent(item))]
                cursor = rest.get("next_cursor")
                if not more:
                    return found, None
                if isinstance(cursor, str):
                    return found, cursor
        raise Unanswered(f"status code {answer.status_code}")
