"""An app and its doors, without a socket: what `app.cli.doorway` is to clients of a server."""

from typing import Any

from starlette.types import Message, Receive, Scope, Send

from app.main import Service


class BehindDoors:
    """*app*, as ASGI, which is asked only what its doors leave alone."""

    def __init__(self, app: Service) -> None:
        self._app = app
        self.state = app.state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the doors are asked if it comes in one piece."""
        first: list[Message] = [await receive()]

        async def again() -> Message:
            return first.pop() if first else await receive()

        whole = first[0]["type"] == "http.request" and not first[0].get("more_body")
        answer = await self._app.doors.answer(scope, first[0].get("body", b"")) if whole else None
        if answer is None:
            await self._app(scope, again, send)
            return
        head: dict[str, Any] = {"status": answer.status, "headers": answer.headers}
        await send({"type": "http.response.start", **head})
        await send({"type": "http.response.body", "body": answer.body})
