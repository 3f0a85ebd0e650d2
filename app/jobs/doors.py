"""
The busy doors, before the framework: what comes often and plainly is answered here, in a fifth of the work.

A door answers as its route in `routes` or `receiver` does, by the same functions. What it can't read, or isn't made
for, it leaves alone, and the route takes it: so there is one place that says what is wrong with a request.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from fastapi import Request
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import errors, wakeup
from app.jobs import looking, ordering
from app.jobs.ordering import Terms
from app.jobs.receiver import LONGEST_TOKEN, hear
from app.jobs.routes import KEY, LONGEST_KEY
from app.jobs.schemas import JobOrder
from app.tenants import keys
from app.tenants.auth import caller_of, permitted

JSON: Final = "application/json"
OF_JSON: Final = (b"content-type", JSON.encode())
ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Answer(NamedTuple):
    """A body of JSON, and what is told beside it."""

    body: bytes
    status: int = 200
    told: Sequence[tuple[bytes, bytes]] = ()


class Heard(Request):
    """
    A request whose body a door may read, and then the app once more.

    Starlette's own way to a body, through a stream of its parts, costs several times as much as what it brings.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        super().__init__(scope, receive)
        self._heard: list[Message] = []

    async def body(self) -> bytes:
        """The whole of it. Raises ClientDisconnect."""
        if not hasattr(self, "_body"):
            while not self._heard or self._heard[-1].get("more_body"):
                self._heard.append(await self.receive())
            if self._heard[-1]["type"] == "http.disconnect":
                raise ClientDisconnect
            self._body = b"".join(message.get("body", b"") for message in self._heard)
        return self._body

    async def again(self) -> Message:
        """As `receive` of ASGI, from the beginning."""
        return self._heard.pop(0) if self._heard else await self.receive()


Door = Callable[[Request], Awaitable[Answer | None]]


class Doors:
    """Tries the door for a request, if there is one; else, or if the door leaves it alone, the app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        door = _door(scope) if scope["type"] == "http" else None
        if door is None:
            await self._app(scope, receive, send)
            return
        request = Heard(scope, receive)
        try:
            answer = await door(request)
        except errors.TOLD as error:
            await errors.answer(error, request)(scope, request.again, send)
            return
        if answer is None:
            await self._app(scope, request.again, send)
            return
        headers = [(b"content-length", b"%d" % len(answer.body)), OF_JSON, *answer.told]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})


def _door(scope: Scope) -> Door | None:
    match scope["method"], scope["path"].split("/"):
        case "POST", ["", "v1", "jobs"]:
            return create
        case "GET", ["", "v1", "jobs", _]:
            return show
        case "POST", ["", "webhooks", "fal", _]:
            return receive
    return None


async def show(request: Request) -> Answer | None:
    """`GET /v1/jobs/{id}`, as `routes.show` answers it."""
    job_id = request.scope["path"].rpartition("/")[2]
    if "prefer" in request.headers or not ID.fullmatch(job_id):
        return None
    caller = permitted(await caller_of(request), keys.Scope.JOBS_READ, keys.Action.READ)
    return Answer(to_json(await looking.found(request, caller, UUID(job_id))))


async def receive(request: Request) -> Answer | None:
    """`POST /webhooks/fal/{token}`, as `receiver.receive` answers it."""
    token = request.scope["path"].rpartition("/")[2]
    if len(token) > LONGEST_TOKEN:
        return None
    return Answer(to_json({"applied": await hear(request, token)}))


def _is_fine(key: str | None) -> bool:
    return key is None or (len(key) <= LONGEST_KEY and KEY.fullmatch(key) is not None)


async def create(request: Request) -> Answer | None:
    """`POST /v1/jobs`, as `routes.create` answers it."""
    headers = request.headers
    key = headers.get("idempotency-key")
    if "prefer" in headers or headers.get("content-type") != JSON or not _is_fine(key):
        return None
    caller = permitted(await caller_of(request), keys.Scope.JOBS_WRITE, keys.Action.CREATE)
    try:
        order = JobOrder.model_validate_json(await request.body())
    except ValidationError:
        return None
    state: Any = request.app.state
    job, new = await ordering.place(state.db, caller, Terms.of(request), order, key)
    told = [(b"location", f"/v1/jobs/{job['id']}".encode())]
    if new:
        state.announcer.announce(wakeup.DISPATCHER)
    else:
        told.append((b"idempotent-replayed", b"true"))
    return Answer(to_json(job), 202 if new else 200, told)
