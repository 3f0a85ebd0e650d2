"""What a client said and what it was answered, noted on the way to the app that answers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Said by the HTTP library for the hop alone, not by fal's client.
HOP: Final = frozenset(
    {
        "host",
        "connection",
        "accept-encoding",
        "content-length",
        "transfer-encoding",
        "accept-language",
        "sec-fetch-mode",
    }
)
KEPT_BYTES: Final = 256 * 1024


@dataclass(slots=True)
class Exchange:
    """One request and its answer; of a large body the beginning and the size are kept."""

    method: str
    host: str
    target: str
    headers: Mapping[str, str]
    length: str | None = None
    body: bytes = b""
    size: int = 0
    status: int | None = None
    """None while unanswered, and for ever when the connection was dropped instead."""
    answer_headers: Mapping[str, str] = field(default_factory=dict)
    answer: bytes = b""

    @property
    def line(self) -> str:
        """Method, host, path and query, e.g. `GET queue.fal.run/a/b/requests/1/status?logs=0`."""
        return f"{self.method} {self.host}{self.target}"

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def answered(self) -> Any:
        """The answer's JSON."""
        return json.loads(self.answer)

    @property
    def events(self) -> list[Any]:
        """The JSON of every event, where the answer is an event stream."""
        assert self.answer_headers["content-type"].startswith("text/event-stream")
        lines = self.answer.decode().splitlines()
        return [json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:")]


class Recorder:
    """
    An app that hands everything on to *app* and notes it in `heard`, in the order of arrival.

    *doors* names the host that a first path segment stands for. A client that can only be pointed at another
    base URL comes in by such a door, and its lines read as if it had called fal.
    """

    def __init__(self, app: ASGIApp, *, own_url: str, doors: Mapping[str, str]) -> None:
        self.heard: list[Exchange] = []
        self._app = app
        self._own = urlsplit(own_url).netloc
        self._doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = self._begin(scope)
        self.heard.append(exchange)
        ear = Ear(receive, exchange)

        async def say(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                exchange.answer_headers = _plain(message.get("headers", ()))
            elif message["type"] == "http.response.body" and len(exchange.answer) < KEPT_BYTES:
                exchange.answer += message.get("body", b"")[: KEPT_BYTES - len(exchange.answer)]
            await send(message)

        await self._app(scope, ear.hear, say)

    def _begin(self, scope: Scope) -> Exchange:
        headers = _plain(scope["headers"])
        host = headers.get("host", "")
        target = scope["raw_path"].decode("ascii")
        door, slash, rest = target[1:].partition("/")
        if host == self._own and slash and door in self._doors:
            host, target = self._doors[door], f"/{rest}"
        if scope["query_string"]:
            target += "?" + scope["query_string"].decode("ascii")
        return Exchange(
            method=scope["method"],
            host="simulator" if host == self._own else host,
            target=target,
            headers={name: value for name, value in headers.items() if name not in HOP},
            length=headers.get("content-length"),
        )


class Ear:
    """Passes a request's messages on, and with them uvicorn's transport: the simulator drops a connection by it."""

    def __init__(self, receive: Receive, exchange: Exchange) -> None:
        self.transport = getattr(getattr(receive, "__self__", None), "transport", None)
        self._receive = receive
        self._exchange = exchange

    async def hear(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            piece = message.get("body", b"")
            self._exchange.size += len(piece)
            self._exchange.body += piece[: KEPT_BYTES - len(self._exchange.body)]
        return message


def _plain(headers: Any) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
