"""Taking an order: the only call that may cost money, and the one whose answer gets lost."""

import asyncio
from typing import Any, Final
from uuid import uuid4

from starlette.requests import Request as Call
from starlette.responses import Response

from app.simulator.account import EXHAUSTED
from app.simulator.endpoints import app_of, segments
from app.simulator.files import kept_s
from app.simulator.requests import Request
from app.simulator.routes.answers import Dropped, answer, failed, locked, nginx, no_access, no_application, not_found
from app.simulator.script import BadScript, Script, from_header, from_prompt
from app.simulator.simulator import Simulator

YES: Final = frozenset({"1", "true", "yes"})
# A webhook that should come first isn't waited for longer than this; its target may wait for our answer.
EARLY_S: Final = 5.0


async def submit(simulator: Simulator, call: Call, path: str, urls: str) -> Response:
    """POST /{full endpoint id}: 200 and a request id, whatever the input is; it's checked when it runs."""
    parts = segments(path)
    app = app_of(parts)
    if app is None:
        return not_found()
    simulator.tally["submits"] += 1
    try:
        if (no := barred(simulator, call, app) or _too_long(simulator, call)) is not None:
            return no
        body = await call.body()
        if len(body) > simulator.config.max_body_bytes:
            return answer(413, {"detail": "Request body too large"})
        words = _words(simulator, call, body)
        script = Script.read(words)
    except BadScript as error:
        return answer(400, {"detail": str(error)})
    request = order(simulator, call, app=app, endpoint="/".join(parts), body=body)
    request.words, request.script = words, script
    faulty = script.times == 0 or simulator.faults_met(request) < script.times
    if faulty and (no := _not_taken(app, script)) is not None:
        return no
    request.webhook_url = call.query_params.get("fal_webhook")
    request.start_by = _start_by(simulator, call)
    simulator.accept(request)
    # The books are the evidence of what was paid for, so nobody hears of a request that isn't in them.
    await simulator.book.committed()
    return await _told(simulator, request, urls, faulty=faulty)


def order(simulator: Simulator, call: Call, *, app: str, endpoint: str, body: bytes) -> Request:
    """A request as the headers of *call* want it, not accepted yet."""
    headers = call.headers
    return Request(
        request_id=str(uuid4()),
        app=app,
        endpoint=endpoint,
        body=body.decode("utf-8", "replace"),
        submitted_at=simulator.clock.now(),
        low_priority=headers.get("x-fal-queue-priority", "").lower() == "low",
        no_retry=headers.get("x-fal-no-retry", "").lower() in YES,
        store_io=headers.get("x-fal-store-io") != "0",
        output_kept_s=kept_s(headers.get("x-fal-object-lifecycle-preference")),
    )


def barred(simulator: Simulator, call: Call, app: str) -> Response | None:
    """Why nothing may be ordered by this call at all."""
    account, apps = simulator.account, simulator.config.apps
    if not account.admits(call.headers.get("authorization"), app):
        return no_access(app)
    if (why := account.lock_for(call.headers.get("authorization"))) is not None:
        return locked(why)
    if apps and app not in apps:
        return no_application(app)
    return None


def _too_long(simulator: Simulator, call: Call) -> Response | None:
    """The caller would rather be refused than wait behind that many."""
    longest = call.query_params.get("fal_max_queue_length", "")
    if longest.isdecimal() and simulator.queue.waiting > int(longest):
        return answer(429, {"detail": "The queue is too long"})
    return None


def _words(simulator: Simulator, call: Call, body: bytes) -> dict[str, Any]:
    header = call.headers.get("x-simulator-script")
    return simulator.fate(None if header is None else from_header(header), from_prompt(body))


def _start_by(simulator: Simulator, call: Call) -> float | None:
    """When the caller's start timeout is over; the newer header wins."""
    headers = call.headers
    asked = headers.get("x-fal-request-start-timeout") or headers.get("x-fal-request-timeout")
    try:
        seconds = float(asked) if asked else 0.0
    except ValueError:
        return None
    return simulator.clock.now() + seconds if seconds > 0.1 else None


def _not_taken(app: str, script: Script) -> Response | None:
    """The fault by which this order isn't accepted, if its script has one."""
    if script.lost_request:
        return Dropped()
    if not script.refuse:
        return None
    named = {
        "locked": locked(EXHAUSTED),
        "401": no_access(app),
        "unknown_app": no_application(app),
        "404": no_application(app),
        "nginx": nginx(503),
    }
    return named.get(script.refuse) or failed(int(script.refuse))


async def _told(simulator: Simulator, request: Request, urls: str, *, faulty: bool) -> Response:
    """The answer to an accepted order, or what became of it."""
    script = request.script
    if script.early:
        await _ended_and_told(request)
    if faulty and script.slow_answer_s:
        await asyncio.sleep(script.slow_answer_s)
    if faulty and script.lost_answer:
        simulator.tally["lost_answers"] += 1
        return Dropped()
    if faulty and script.answer:
        return nginx(script.answer) if script.answer in {502, 503, 504} else failed(script.answer)
    base = f"{urls}/{request.app}/requests/{request.request_id}"
    said: dict[str, Any] = {
        "status": "IN_QUEUE",
        "request_id": request.request_id,
        "response_url": base,
        "status_url": f"{base}/status",
        "cancel_url": f"{base}/cancel",
        "logs": None,
        "metrics": {},
        "queue_position": simulator.queue.place(request),
    }
    return answer(200, said, {"x-fal-request-id": request.request_id})


async def _ended_and_told(request: Request) -> None:
    """Let the whole request happen, its first webhook included, before the submit is answered."""
    try:
        async with asyncio.timeout(EARLY_S):
            while not (request.told or request.deliveries):
                await request.change()
    except TimeoutError:
        return
