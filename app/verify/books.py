"""What fal has on its books: every request it took, and what it bills for it."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import httpx

PAGE: Final = 2000
NO_BOOKS: Final = "These aren't the books of a simulator."


class BooksUnreadable(Exception):
    """fal's books can't be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Taken:
    """
    A request that fal took.

    *token* is that of the webhook URL it came with, if the books tell it; *billed* is None as long as nothing
    is known of the price.
    """

    request_id: str
    token: str | None
    billed: Decimal | None


class Books(Protocol):
    """
    Where to read what fal took: the simulator's own books, or any list that knows a request's id and price.

    fal's billing events (`/models/billing-events`, by time) fit too: they tell neither a webhook URL nor what
    was free, so they prove less.
    """

    async def until(self) -> int:
        """Where the books end now. Raises BooksUnreadable."""

    def pages(self, until: int) -> AsyncIterator[Sequence[Taken]]:
        """All of the books up to *until*, a bounded piece at a time. Raises BooksUnreadable."""


@dataclass(frozen=True, slots=True)
class SimulatorBooks:
    """The books of the simulator at *url*."""

    http: httpx.AsyncClient
    url: str

    async def until(self) -> int:
        """How many requests it took so far; they are numbered from 0."""
        found = await self._read(after=0, limit=0)
        try:
            return int(found["totals"]["accepted"])
        except (KeyError, TypeError, ValueError):
            raise BooksUnreadable(NO_BOOKS) from None

    async def pages(self, until: int) -> AsyncIterator[Sequence[Taken]]:
        """Its requests numbered below *until*, oldest first."""
        after: int | None = 0
        while after is not None and after < until:
            page = await self._read(after=after, limit=min(PAGE, until - after))
            yield [_taken(entry) for entry in page["requests"]]
            after = page["next_after"]

    async def _read(self, **params: int) -> Any:
        where = f"{self.url.rstrip('/')}/simulator/requests"
        try:
            answer = await self.http.get(where, params=params)
            answer.raise_for_status()
            return answer.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise BooksUnreadable(f"{where} can't be read ({type(error).__name__}).") from None


def _taken(entry: Any) -> Taken:
    try:
        billed = None if entry["billed"] is None else Decimal(entry["billed"])
        token = urlsplit(entry["webhook_url"] or "").path.rpartition("/")[2] or None
        return Taken(entry["request_id"], token, billed)
    except (KeyError, TypeError, ValueError, InvalidOperation):
        raise BooksUnreadable(NO_BOOKS) from None
