"""An app and its doors, without a socket: what `app.cli.doorway` is to clients of a server."""

from typing import Any

from starlette.types import Message, Receive, Scope, Send

from app.main import Service


class BehindDoors:
    """*app*, as ASGI, which is asked only what its doors leave alone."""

    def __init__(self, app: Service) -> None:
        self._app = app
        self.state = app.state
        self.answered = 0
        """How many requests the doors answered."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the doors are asked if it comes in one piece."""
        heard: list[Message] = [await receive()]
        if heard[0].get("more_body"):
            # httpx ends every body with a part that is empty.
            heard.append(await receive())

        async def again() -> Message:
            return heard.pop(0) if heard else await receive()

        last, body = heard[-1], heard[0].get("body", b"")
        whole = (
            last["type"] == "http.request" and not last.get("more_body") and (len(heard) == 1 or not last.get("body"))
        )
        answer = await self._app.doors.answer(scope, body) if whole else None
        if answer is None:
            await self._app(scope, again, send)
            return
        self.answered += 1
        head: dict[str, Any] = {"status": answer.status, "headers": answer.headers}
        await send({"type": "http.response.start", **head})
        await send({"type": "http.response.body", "body": answer.body})
