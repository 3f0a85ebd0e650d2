"""HTTP at the edges: what every request passes on its way in, and the one kind of client that asks others."""

from ipaddress import ip_network
from typing import Final

import httpx
import structlog
from ssrfguard import Policy
from ssrfguard.httpx import AsyncSafeTransport
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.db import new_id
from app.errors import BodyTooLarge, problem

LOOPBACK: Final = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


class Edge:
    """
    Names every request, bounds its body, and sets the headers every answer carries.

    Plain ASGI: Starlette's BaseHTTPMiddleware costs more than the whole request behind it.
    """

    def __init__(self, app: ASGIApp, *, body_limit: int) -> None:
        self._app = app
        self._limit = body_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = str(new_id())
        scope["request_id"] = request_id
        taken = 0

        async def bounded_receive() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._limit:
                raise HTTPException(413)
            return message

        async def marked_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            if too_large(scope, self._limit):
                refusal = problem(body_too_large(self._limit), Request(scope))
                await refusal(scope, receive, marked_send)
                return
            await self._app(scope, bounded_receive, marked_send)


def too_large(scope: Scope, limit: int) -> bool:
    """Whether the request announces a body above *limit* bytes."""
    length = dict(scope["headers"]).get(b"content-length", b"")
    return length.isdigit() and int(length) > limit


def body_too_large(limit: int) -> BodyTooLarge:
    """The refusal of a body above *limit* bytes; the rest of it isn't read."""
    return BodyTooLarge(f"At most {limit} bytes are taken.", headers={"Connection": "close"})


async def read_body(request: Request, limit: int) -> bytes:
    """The raw body of *request*. Raises BodyTooLarge above *limit* bytes, without reading on."""
    if too_large(request.scope, limit):
        raise body_too_large(limit)
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise body_too_large(limit)
            parts.append(part)
    except ClientDisconnect:
        return b""
    return b"".join(parts)


def new_client(timeout_s: float, *, transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """A client that keeps connections, follows no redirects and ignores proxies named in the environment."""
    return httpx.AsyncClient(
        timeout=httpx.Timeout(timeout_s, connect=min(5.0, timeout_s)),
        limits=httpx.Limits(max_connections=100, max_keepalive_connections=100),
        follow_redirects=False,
        trust_env=False,
        transport=transport,
    )


def guarded_transport(*, allow_loopback: bool = False) -> httpx.AsyncBaseTransport:
    """A transport for addresses that others chose: refuses private, metadata and reserved ones at connect time."""
    if allow_loopback:
        ports = frozenset(range(1, 65536))
        return AsyncSafeTransport(policy=Policy(allowed_networks=LOOPBACK, allowed_ports=ports), trust_env=False)
    return AsyncSafeTransport(policy=Policy(), trust_env=False)
