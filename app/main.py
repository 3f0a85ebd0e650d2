"""The HTTP process: create_app()."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from importlib.metadata import version
from typing import Any, Final
from uuid import UUID

import httpx
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute
from sqlalchemy import text
from starlette.datastructures import State
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from app import docs, errors, wakeup
from app.billing import routes as billing
from app.callbacks import delivery_routes as deliveries
from app.callbacks import routes as endpoints
from app.catalog import routes as catalog
from app.errors import Unavailable, problems
from app.files import routes as files
from app.http import FAILED, Edge, KeyInAddress, Marked, cross_origin
from app.incidents import page as incidents_page
from app.incidents import routes as incidents
from app.jobs import accepting, callbacks, looking, overview, quote_routes, receiver, settling, stream
from app.jobs import bulk_routes as bulk
from app.jobs import routes as jobs
from app.jobs.doors import Doors
from app.jobs.hub import Hub
from app.media import links
from app.media import routes as media
from app.settings import Settings
from app.tenants import auth
from app.tenants import routes as tenants
from app.tenants.known import Known
from app.verify import routes as verify
from app.wakeup import Announcer
from app.wiring import opened

DESCRIPTION: Final = """
A self-hosted gateway for generative-video jobs: send an order, get a job, and later its video and its exact price.

**Start here**: `GET /v1/models` shows what there is, `POST /v1/quotes` what it costs, `POST /v1/jobs` orders it and
`GET /v1/jobs/{id}` tells how it goes. Every call carries `Authorization: Bearer <key>`. A page in a browser gets a
token of `POST /v1/tokens` instead: short-lived, for one end user, with a bound on what it may spend.

Money is in USD, written as exact decimals in strings. Times are RFC 3339 in UTC. Errors are RFC 9457 problems with a
stable `code`, and name every fault at once. Answers may come to have more fields, and more words where they have some:
pass over those that you don't know.
"""
OPEN: Final = (media.router, files.served, stream.linked, receiver.router)
ASKING_WHO_CALLS: Final = (
    catalog.router,
    jobs.router,
    bulk.router,
    overview.router,
    stream.router,
    files.router,
    quote_routes.router,
    billing.router,
    endpoints.router,
    deliveries.router,
    tenants.router,
    verify.router,
    incidents.router,
)
NOBODY: Final = UUID(int=0)
TAGS: Final[list[dict[str, Any]]] = [
    {"name": "Models", "description": "What can be ordered, what it takes and what it costs."},
    {"name": "Jobs", "description": "One job is one video, from order to result."},
    {"name": "Files", "description": "Images, videos and sounds for inputs."},
    {
        "name": "Money",
        "description": "Quotes before, holds during, charges after; every movement is in the ledger.",
    },
    {
        "name": "Callbacks",
        "description": "Where you want to be told, signed, and what was told; `webhooks` in this document says what.",
    },
    {"name": "Access", "description": "Keys, tokens that are safe in a browser, and who changed what."},
    {"name": "Webhooks from fal", "description": "Where fal reports; callers never use it."},
    {"name": "Operations", "description": "Is the service alive, can it work, and does every promise hold?"},
]


class Shared(State):
    """
    What all requests share, as plain attributes.

    In Starlette's own, each look at one is an AttributeError first: a twentieth of the work of an order.
    """

    def __setattr__(self, key: str, value: Any) -> None:
        """Keep *value* as what is called *key*."""
        object.__setattr__(self, key, value)

    def __delattr__(self, key: str) -> None:
        """Forget it."""
        object.__delattr__(self, key)


class Service(FastAPI):
    """
    The framework behind our own front.

    As its middleware they would stand behind five layers of its own, which cost more than all of ours.
    """

    front: ASGIApp
    doors: Doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope["app"] = self
        await self.front(scope, receive, send)

    async def behind(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve what came past the front, by the routes; or tell what befell it at a door."""
        # Taken out: an error holds on to the scope, and would to what is in it.
        failed = scope.pop(FAILED, None)
        if isinstance(failed, errors.TOLD):
            await errors.answer(failed, Request(scope))(scope, receive, send)
            return
        if failed is not None:
            raise failed
        await super().__call__(scope, receive, send)


def create_app(settings: Settings, *, fal_transport: httpx.AsyncBaseTransport | None = None) -> Service:
    """Callsheet's HTTP API as *settings* say; *fal_transport* stands in for the network to fal, in tests."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            parts = await stack.enter_async_context(opened(settings, fal_transport=fal_transport))
            app.state.hub = hub = await stack.enter_async_context(
                Hub(
                    parts.db,
                    poll_s=settings.poll_s,
                    at_once=settings.streams_at_once,
                    per_key=settings.streams_per_key,
                )
            )
            app.state.announcer = await stack.enter_async_context(Announcer(parts.db.url, here=[hub.woken]))
            channels = (wakeup.WORK, wakeup.NEWS)
            listening = asyncio.create_task(wakeup.listen(parts.db.url, lambda _: hub.wake(), channels))
            stack.callback(listening.cancel)
            app.state.db = parts.db
            app.state.accepting = accepting.gatherer(parts.db)
            app.state.looking = looking.gatherer(parts.db, parts.caps)
            app.state.settling = settling.gatherer(parts.db)
            app.state.catalog = parts.catalog
            app.state.caps = parts.caps
            app.state.measure = parts.measure
            app.state.verifier = parts.verifier
            app.state.storage = parts.storage
            app.state.inbox = parts.inbox
            app.state.settings = settings
            secret = settings.link_secret
            app.state.link_key = links.key_of(secret.get_secret_value()) if secret else None
            app.state.refusals_kept = receiver.Allowance()
            app.state.proving = asyncio.Lock()
            app.state.callback_policy = parts.callback_policy
            app.state.disable_after_s = settings.callback_disable_after_s
            app.state.watch_s = settings.watch_s
            app.state.known = Known(
                per_key=settings.key_requests_per_minute,
                per_token=settings.token_requests_per_minute,
                failures=settings.failures_per_minute,
            )
            app.state.finding = auth.finder(parts.db, app.state.known)
            keeping_books = asyncio.create_task(app.state.known.keep_books(parts.db))
            yield
            keeping_books.cancel()
            await asyncio.gather(keeping_books, return_exceptions=True)

    app = Service(
        title="Callsheet",
        version=version("callsheet"),
        description=DESCRIPTION,
        openapi_tags=TAGS,
        routes=_routes(),
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
        # Spans and metrics for every request cost a twentieth of it; nobody collects them here.
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
    )
    app.state = Shared()
    limits = _body_limits(settings)
    edge = Edge(app.behind, body_limit=settings.body_limit_bytes, limits=limits, slow_s=settings.slow_request_s)
    app.front = marked = Marked(cross_origin(edge, settings.cors_origins), hsts_s=settings.hsts_s)
    app.doors = Doors(app, marked, body_limit=min(limits.values()))
    errors.install(app)
    callbacks.describe(app.webhooks)
    _add_operations(app)
    docs.install(app)
    incidents_page.install(app)
    return app


@cache
def _routes() -> list[BaseRoute]:
    """What the framework makes of our routes when they are first asked for; no setting changes it, so all share it."""
    every = APIRouter(generate_unique_id_function=_operation_id)
    for router in OPEN:
        every.include_router(router)
    for router in ASKING_WHO_CALLS:
        every.include_router(router, responses=problems(KeyInAddress, auth.TooManyRequests))
    return every.routes


def _body_limits(settings: Settings) -> dict[str, int]:
    """How large bodies may be where they may be larger, or smaller, than others, by how the path begins."""
    # Base64 writes three bytes in four letters.
    order = settings.body_limit_bytes + settings.data_uri_limit_bytes * 4 // 3
    return {
        "/webhooks/": settings.webhook_limit_bytes,
        "/v1/files": settings.upload_limit_bytes + files.FORM_SLACK,
        "/v1/jobs": order,
        "/v1/quotes": order,
    }


def _operation_id(route: APIRoute) -> str:
    return route.name


def _add_operations(app: FastAPI) -> None:
    @app.get("/livez", tags=["Operations"], operation_id="livez", summary="Is the process alive?", status_code=204)
    async def livez() -> Response:
        """204 while the process answers at all."""
        return Response(status_code=204)

    @app.get(
        "/readyz",
        tags=["Operations"],
        operation_id="readyz",
        summary="Can it work?",
        status_code=204,
        responses=problems(Unavailable),
    )
    async def readyz(request: Request) -> Response:
        """204 while the database answers, and lets this service read on a caller's behalf."""
        async with request.app.state.db.reading_as(NOBODY) as session:
            await session.execute(text("SELECT 1"))
        return Response(status_code=204)
