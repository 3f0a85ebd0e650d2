"""
Server-Sent Events: how a line of news is written, and the answer that goes on until its source ends.

Plain ASGI with one small task for each stream. FastAPI's own streams keep a queue, a task group and three tasks for
each, and tell nobody that the reader has stopped reading.
"""

import asyncio
from typing import Final, Protocol

import structlog
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

log = structlog.get_logger()

KEEP_ALIVE_S: Final = 15.0
STALLED_S: Final = 20.0
"""How long a reader may take nothing while more waits for it."""


class Source(Protocol):
    """Where a stream's lines come from."""

    async def take(self) -> bytes | None:
        """What there is to send, once there is some; None at the end."""

    def end(self) -> None:
        """Whoever takes gets nothing more."""

    def leave(self) -> None:
        """Nobody takes any more."""


def line(data: str, *, event: str, id: str | int | None = None) -> bytes:  # noqa: A002 - the standard's name
    """One event on the wire; *data* must be one line, as JSON without indents is."""
    named = "" if id is None else f"id: {id}\n"
    return f"event: {event}\n{named}data: {data}\n\n".encode()


async def hang_up(receive: Receive, source: Source) -> None:
    """End *source* once the client has gone away, or sends a body that isn't taken."""
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    except HTTPException as error:
        log.info("stream_ended", why=error.detail)
    finally:
        source.end()


class EventStream(Response):
    """
    The answer that sends what *source* gives, with a comment every 15 seconds that keeps proxies from closing it.

    A reader that takes nothing for *stalled_s* seconds is cut off, and resumes where it was.
    """

    media_type = "text/event-stream"

    def __init__(self, source: Source, *, stalled_s: float = STALLED_S) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no", "Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._source = source
        self._stalled_s = stalled_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Send until the source ends, the client goes, or it stops reading."""
        leaving = asyncio.create_task(hang_up(receive, self._source))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            # What waits for a first byte, as some proxies and browsers do, needn't wait for the first event.
            part: bytes | None = b": hello\n\n"
            while part is not None:
                async with asyncio.timeout(self._stalled_s):
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                part = await self._next()
            async with asyncio.timeout(self._stalled_s):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            log.warning("stream_stalled")
        finally:
            self._source.leave()
            leaving.cancel()

    async def _next(self) -> bytes | None:
        try:
            async with asyncio.timeout(KEEP_ALIVE_S):
                return await self._source.take()
        except TimeoutError:
            return b": still here\n\n"
