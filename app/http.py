"""HTTP at the edges: what every request passes on its way in, and the one kind of client that asks others."""

import ssl
import traceback
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import ip_network
from typing import Final
from urllib.parse import parse_qsl

import httpx
import structlog
from ssrfguard import Policy, Resolver
from ssrfguard.httpx import AsyncSafeTransport
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from app import logs
from app.body import Body
from app.errors import AppError, BodyTooLarge, Unexpected, problem
from app.transport import GuardedTransport, PooledTransport

log = structlog.get_logger()

# Where a simulator may be: on this machine, or beside us in a container network.
PRIVATE: Final = tuple(
    map(ip_network, ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"))
)
# What a key or token is called when people put it into an address.
NEVER_IN_ADDRESSES: Final = frozenset({"key", "api_key", "apikey", "token", "access_token"})
EXPOSED: Final = (
    "Location",
    "Idempotent-Replayed",
    "Preference-Applied",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "X-Request-Id",
)
ALWAYS_TOLD: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
"""Unless the answer has its own."""
TAKEN: Final = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Prefer")


FAILED: Final = "failed"
"""Where a scope holds what went wrong with its request before it came to the framework."""
Header = tuple[bytes, bytes]


class KeyInAddress(AppError):
    """Keys and tokens don't belong in an address, where logs and histories keep them; send them as `Authorization`."""

    status, code = 400, "key_in_address"


class NotForThisPage(AppError):
    """A page may not make this call: its origin, or a method or header it wants to send, isn't among those allowed."""

    status, code = 400, "cross_origin_refused"


class Marked:
    """
    The outermost layer: names every request, unless a door did, and sets the headers that every answer carries.

    Plain ASGI, as all here: Starlette's BaseHTTPMiddleware costs more than the whole request behind it.
    """

    def __init__(self, app: ASGIApp, *, hsts_s: int | None = None) -> None:
        self._app = app
        hsts = [(b"strict-transport-security", b"max-age=%d" % hsts_s)] if hsts_s else []
        self._told = [*ALWAYS_TOLD, *hsts]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self.name(scope)

        def marked_send(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                scope["answered"] = True
                message["headers"] = self.headers(scope, message.get("headers", ()))
            return send(message)

        await self._app(scope, receive, marked_send)

    def name(self, scope: Scope) -> None:
        """Give the request its name, unless it has one; whoever adds to `also_told` of *scope* tells that with it."""
        if "request_id" not in scope:
            scope["request_id"] = request_id = str(uuid7())
            scope["also_told"] = {}
            # A request is a task of its own, and what is set here ends with it.
            logs.REQUEST_ID.set(request_id)

    def headers(self, scope: Scope, headers: Iterable[Header]) -> list[Header]:
        """*headers* of an answer, and with them those that every answer carries."""
        all_ = [*headers, (b"x-request-id", scope["request_id"].encode())]
        all_ += [(name.lower().encode(), value.encode()) for name, value in scope["also_told"].items()]
        names = {name for name, _ in all_}
        all_ += [header for header in self._told if header[0] not in names]
        return all_


class Edge:
    """
    The layer around all routes: bounds a request's body, and turns what nobody caught into a plain 500.

    Only `Marked` and what tells pages of other origins are outside, so that they can read even what goes wrong here.
    The doors are beside it; what goes wrong there comes here to be told.
    """

    def __init__(self, app: ASGIApp, *, body_limit: int, limits: Mapping[str, int], slow_s: float) -> None:
        """
        Takes bodies of *body_limit* bytes, and where a path begins as *limits* says, of as many as stand there.

        How long they may take, *slow_s* says, as `Body` has it.
        """
        self._app = app
        self._body_limit = body_limit
        self._limits = limits
        self._slow_s = slow_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope["path"])
        refusal = _refused_unread(scope, limit)
        if refusal is not None:
            await _tell(refusal, scope, send)
            return
        try:
            await self._app(scope, Body(receive, limit=limit, slow_s=self._slow_s).receive, send)
        except ClientDisconnect:
            log.info("client_gone")
        except Exception as error:  # noqa: BLE001 - the last one to catch anything
            _log_failure(error)
            if "answered" not in scope:
                await _tell(Unexpected(), scope, send)

    def _limit(self, path: str) -> int:
        return next((limit for start, limit in self._limits.items() if path.startswith(start)), self._body_limit)


def _log_failure(error: Exception) -> None:
    # Kinds and places only: messages quote the values of statements, and those are prompts.
    where = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    log.error("request_failed", kind=type(error).__name__, where=where[-8:])


def _refused_unread(scope: Scope, limit: int) -> AppError | None:
    """What is wrong with a request by its first lines alone."""
    if _announces_more_than(scope, limit):
        return BodyTooLarge(headers={"Connection": "close"})
    if scope["query_string"] and _names_a_key(scope["query_string"]):
        return KeyInAddress("If it is a real one, revoke it: it may be in logs by now.")
    return None


def _announces_more_than(scope: Scope, limit: int) -> bool:
    length = dict(scope["headers"]).get(b"content-length", b"")
    return length.isdigit() and int(length) > limit


def _names_a_key(query: bytes) -> bool:
    names = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return any(name.lower() in NEVER_IN_ADDRESSES for name, _ in names)


async def _tell(error: AppError, scope: Scope, send: Send) -> None:
    await problem(error, Request(scope))(scope, _nothing_more, send)


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}


class CrossOrigin(CORSMiddleware):
    """Starlette's, but that a refusal is told as every other error is."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            await super().__call__(scope, receive, send)
        except NotForThisPage as error:
            await _tell(error, scope, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        """What a browser is told that asks first. Raises NotForThisPage."""
        answer = super().preflight_response(request_headers)
        if answer.status_code >= 400:
            kept = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
            raise NotForThisPage(f"{bytes(answer.body).decode()}.", headers=kept)
        return answer


def cross_origin(app: ASGIApp, origins: str | None) -> ASGIApp:
    """*app*, which pages of *origins*, a list with commas, may call by bearer token; never by cookie."""
    if origins is None:
        return app
    return CrossOrigin(
        app,
        allow_origins=origins.split(","),
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=TAKEN,
        allow_credentials=False,
        expose_headers=EXPOSED,
        max_age=600,
    )


def new_client(
    timeout_s: float, *, at_once: int = 100, transport: httpx.AsyncBaseTransport | None = None
) -> httpx.AsyncClient:
    """
    A client that keeps connections but no cookies, follows no redirects and ignores the environment's proxies.

    It makes *at_once* calls at a time, unless it has a *transport* of its own.
    """
    return httpx.AsyncClient(
        cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=())),
        timeout=httpx.Timeout(timeout_s, connect=min(5.0, timeout_s)),
        follow_redirects=False,
        trust_env=False,
        transport=transport or PooledTransport(at_once=at_once, ssl_context=_authorities()),
    )


async def once(http: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """
    The whole answer to *request*, sent as it is: *http* adds nothing and follows nothing.

    What a client does around its transport costs more than the transport.
    """
    async with begun(http, request) as answer:
        await answer.aread()
    return answer


@asynccontextmanager
async def begun(http: httpx.AsyncClient, request: httpx.Request) -> AsyncIterator[httpx.Response]:
    """The answer to *request*, as `once` has it, while its body is still to be read; what isn't read is left."""
    request.extensions.setdefault("timeout", http.timeout.as_dict())
    answer = await http._transport.handle_async_request(request)  # noqa: SLF001 - has no other name
    try:
        yield answer
    finally:
        await answer.aclose()


def guarded_transport(
    *, policy: Policy, at_once: int = 100, resolver: Resolver | None = None
) -> httpx.AsyncBaseTransport:
    """
    A transport for *at_once* short calls to addresses that others chose: within *policy*, judged at connect time.

    *resolver* stands in for the system's look-up of names, in tests.
    """
    return GuardedTransport(policy, at_once=at_once, resolver=resolver, ssl_context=_authorities())


def download_transport(*, allow_private: bool = False) -> httpx.AsyncBaseTransport:
    """
    A transport for files at addresses that others chose, however large: they come no faster than they are read.

    Refuses private, metadata and reserved addresses at connect time; *allow_private* those that aren't private.
    """
    policy = Policy(allowed_networks=PRIVATE, allowed_ports=frozenset(range(1, 65536))) if allow_private else Policy()
    return AsyncSafeTransport(policy=policy, trust_env=False, verify=_authorities())


@cache
def _authorities() -> ssl.SSLContext:
    """Whom we believe who a server is: read once, as reading them takes longer than a request."""
    return httpx.create_ssl_context(trust_env=False)
