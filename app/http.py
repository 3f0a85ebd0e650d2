"""HTTP at the edges: what every request passes on its way in, and the one kind of client that asks others."""

import traceback
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
from app.errors import AppError, BodyTooLarge, Unexpected, problem
from app.transport import PooledTransport

log = structlog.get_logger()

# Where a simulator may be: on this machine, or beside us in a container network.
PRIVATE: Final = tuple(
    map(ip_network, ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"))
)


class Edge:
    """
    The outermost layer: names every request, bounds its body, sets the headers every answer carries, and
    turns what nobody caught into a plain 500.

    Plain ASGI: Starlette's BaseHTTPMiddleware costs more than the whole request behind it.
    """

    def __init__(self, app: ASGIApp, *, body_limit: int, webhook_limit: int) -> None:
        self._app = app
        self._limits = {True: webhook_limit, False: body_limit}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["request_id"] = request_id = str(new_id())
        limit = self._limits[scope["path"].startswith("/webhooks/")]
        taken, started = 0, False

        async def bounded_receive() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > limit:
                raise HTTPException(BodyTooLarge.status)
            return message

        async def marked_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            if _announces_more_than(scope, limit):
                await _tell(BodyTooLarge(headers={"Connection": "close"}), scope, marked_send)
                return
            try:
                await self._app(scope, bounded_receive, marked_send)
            except ClientDisconnect:
                log.info("client_gone")
            except Exception as error:  # noqa: BLE001 - the last one to catch anything
                _log_failure(error)
                if not started:
                    await _tell(Unexpected(), scope, marked_send)


def _log_failure(error: Exception) -> None:
    # Kinds and places only: messages quote the values of statements, and those are prompts.
    where = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    log.error("request_failed", kind=type(error).__name__, where=where[-8:])


def _announces_more_than(scope: Scope, limit: int) -> bool:
    length = dict(scope["headers"]).get(b"content-length", b"")
    return length.isdigit() and int(length) > limit


async def _tell(error: AppError, scope: Scope, send: Send) -> None:
    await problem(error, Request(scope))(scope, _nothing_more, send)


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}


def new_client(timeout_s: float, *, transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """A client that keeps connections, follows no redirects and ignores proxies named in the environment."""
    return httpx.AsyncClient(
        timeout=httpx.Timeout(timeout_s, connect=min(5.0, timeout_s)),
        follow_redirects=False,
        trust_env=False,
        transport=transport or PooledTransport(),
    )


def guarded_transport(*, allow_private: bool = False) -> httpx.AsyncBaseTransport:
    """A transport for addresses that others chose: refuses private, metadata and reserved ones at connect time."""
    if allow_private:
        ports = frozenset(range(1, 65536))
        return AsyncSafeTransport(policy=Policy(allowed_networks=PRIVATE, allowed_ports=ports), trust_env=False)
    return AsyncSafeTransport(policy=Policy(), trust_env=False)
