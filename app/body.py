"""A request's body as it comes: bounded in size, and in how long a client may take to send it."""

import asyncio
import time
from typing import Final

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from app.errors import BodyTooLarge, BodyTooSlow

BYTES_PER_S: Final = 10_000.0
"""What a body has to come at, at least, once its *slow_s* are used up; and what an answer has to be taken at."""


class Body:
    """
    What `receive` of ASGI brings, up to *limit* bytes, while the client sends.

    All the waiting for it may take *slow_s* seconds, and one more for each BYTES_PER_S that came; how long we take to
    use what came doesn't count. Raises HTTPException, which FastAPI lets pass where it reads bodies itself.
    """

    def __init__(self, receive: Receive, *, limit: int, slow_s: float) -> None:
        self._receive = receive
        self._limit = limit
        self._left_s = slow_s
        self._taken, self._whole = 0, False

    async def receive(self) -> Message:
        """The next message; after the body, whatever comes, however late."""
        if self._whole:
            return await self._receive()
        since = time.monotonic()
        try:
            async with asyncio.timeout(max(self._left_s, 0)):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(BodyTooSlow.status) from None
        part = len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        self._left_s += part / BYTES_PER_S - (time.monotonic() - since)
        self._taken += part
        if self._taken > self._limit:
            raise HTTPException(BodyTooLarge.status)
        return message
