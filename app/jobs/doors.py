"""
The busy doors, beside the framework: what comes often and plainly is answered here, in a fifth of the work.

A door answers as its route in `routes` or `receiver` does, by the same functions. What it can't read, or isn't made
for, it leaves alone, and the route takes it: so there is one place that says what is wrong with a request.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from fastapi import FastAPI, Request
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.types import Scope

from app import wakeup
from app.http import FAILED, Header, Marked
from app.jobs import looking, ordering
from app.jobs.ordering import Terms
from app.jobs.receiver import LONGEST_TOKEN, hear
from app.jobs.routes import KEY, LONGEST_KEY
from app.jobs.schemas import JobOrder
from app.tenants import keys
from app.tenants.auth import known_caller, permitted

JSON: Final = "application/json"
OF_JSON: Final = (b"content-type", JSON.encode())
ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Answer(NamedTuple):
    """A body of JSON, and what is told beside it."""

    body: bytes
    status: int = 200
    headers: Sequence[Header] = ()


class Whole(Request):
    """A request whose *body* is there; Starlette's own way to it costs several times as much as what it brings."""

    def __init__(self, scope: Scope, body: bytes) -> None:
        super().__init__(scope)
        self._body = body


Door = Callable[[Request], Awaitable[Answer | None]]


class Doors:
    """The doors of *app*, whose answers are *marked* as all others are, for bodies of up to *body_limit* bytes."""

    def __init__(self, app: FastAPI, marked: Marked, *, body_limit: int) -> None:
        self._app = app
        self._marked = marked
        self._body_limit = body_limit

    def have_one_for(self, scope: Scope) -> bool:
        """Whether it is worth waiting for the request's body: if not, all of it is for *app*."""
        return _door(scope) is not None

    async def answer(self, scope: Scope, body: bytes) -> Answer | None:
        """
        What its door answers to a request that is there as a whole; None if it is for *app*.

        What went wrong at a door isn't raised: *app* tells it, or logs it, as all that goes wrong there.
        """
        door = _door(scope)
        if door is None or len(body) > self._body_limit:
            return None
        scope["app"] = self._app
        self._marked.name(scope)
        request = Whole(scope, body)
        # To pages of other origins more is told.
        if "origin" in request.headers:
            return None
        try:
            answer = await door(request)
        except Exception as error:  # noqa: BLE001 - whoever asked hears of it
            scope[FAILED] = error
            return None
        if answer is None:
            return None
        told = [(b"content-length", b"%d" % len(answer.body)), OF_JSON, *answer.headers]
        return answer._replace(headers=self._marked.headers(scope, told))


def _door(scope: Scope) -> Door | None:
    # None of them reads one, and somebody may have put their key there.
    if scope["query_string"]:
        return None
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
    caller = await known_caller(request)
    if caller is None:
        return None
    permitted(caller, keys.Scope.JOBS_READ, keys.Action.READ)
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
    caller = await known_caller(request)
    if caller is None:
        return None
    permitted(caller, keys.Scope.JOBS_WRITE, keys.Action.CREATE)
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
