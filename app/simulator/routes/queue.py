"""queue.fal.run: submit, status, its stream, result and cancel, in every form of path met in the wild."""

import json
from collections.abc import AsyncIterator
from typing import Any, Final

import anyio
from starlette.requests import Request as Call
from starlette.responses import Response, StreamingResponse

from app.simulator.clock import iso
from app.simulator.endpoints import app_of, segments
from app.simulator.requests import Request, Result, State
from app.simulator.routes.answers import answer, bad_key, failed, not_found, wrong_method
from app.simulator.routes.submit import submit
from app.simulator.simulator import Simulator

ON: Final = frozenset({"1", "true"})


async def serve(simulator: Simulator, call: Call, path: str) -> Response:
    """
    Whatever came to the queue.

    What stands before `/requests/` is only checked to begin with the request's app: fal's own clients send
    `owner/app`, fal's OpenAPI documents the full endpoint id.
    """
    # URLs are named with the prefix they were asked under, so a client stays where it was pointed.
    urls = f"{simulator.base}/queue" if call.url.path.startswith("/queue/") else simulator.base
    parts = segments(path)
    place = next((at for at, part in enumerate(parts) if part == "requests" and at >= 2), None)
    if place is None or place + 1 >= len(parts):
        return await submit(simulator, call, path, urls) if call.method == "POST" else wrong_method()
    if not simulator.account.admits(call.headers.get("authorization"), app_of(parts)):
        return bad_key()
    request = simulator.get(parts[place + 1], app=app_of(parts[:place]))
    if request is None:
        return not_found()
    return _about(simulator, call, request, "/".join(parts[place + 2 :]), urls)


def _about(simulator: Simulator, call: Call, request: Request, verb: str, urls: str) -> Response:
    if call.method == "PUT" and verb == "cancel":
        return cancel(simulator, request)
    if call.method not in {"GET", "HEAD"} or verb not in {"", "response", "status", "status/stream"}:
        return wrong_method() if verb in {"", "response", "status", "cancel"} else not_found()
    request.reads += 1
    if request.reads <= request.script.read_errors:
        return failed(503)
    if verb in {"", "response"}:
        return result(simulator, request)
    logs = call.query_params.get("logs", "").lower() in ON
    if verb == "status":
        body = status(simulator, request, urls, logs=logs)
        return answer(200 if request.ended else 202, body, {"x-fal-request-id": request.request_id})
    return StreamingResponse(_stream(simulator, request, urls, logs=logs), media_type="text/event-stream")


def status(simulator: Simulator, request: Request, urls: str, *, logs: bool) -> dict[str, Any]:
    """Where *request* stands."""
    base = f"{urls}/{request.app}/requests/{request.request_id}"
    said: dict[str, Any] = {
        "status": request.state.value,
        "request_id": request.request_id,
        "response_url": base,
        "status_url": f"{base}/status",
        "cancel_url": f"{base}/cancel",
        "logs": None,
        "metrics": {},
    }
    if request.state is State.IN_QUEUE:
        return said | {"queue_position": simulator.queue.place(request)}
    if logs:
        said["logs"] = _logs(request)
    if request.result is not None:
        took_s = (request.ended_at or 0.0) - request.started_at if request.started_at is not None else 0.0
        said["metrics"] = {"inference_time": round(took_s, 6)}
        if request.result.error is not None:
            said |= {"error": request.result.error, "error_type": request.result.error_type}
    return said


def _logs(request: Request) -> list[dict[str, str]]:
    def line(at: float, text: str) -> dict[str, str]:
        return {"message": text, "level": "INFO", "source": "USER", "timestamp": iso(at)}

    lines = [line(request.started_at, "Simulating a video.")] if request.started_at is not None else []
    return lines + ([line(request.ended_at, "Done.")] if request.ended_at is not None else [])


async def _stream(simulator: Simulator, request: Request, urls: str, *, logs: bool) -> AsyncIterator[str]:
    """The status again whenever it moves, until it ends; a comment now and then keeps the line open."""
    yield ": connected\n\n"
    ended = False
    while not ended:
        # Looked at before anything is sent: what moves while the reader is slow is told next, not missed.
        turn, ended = request.turn, request.ended
        said = json.dumps(status(simulator, request, urls, logs=logs))
        yield f"data: {said}\n\n"
        while not ended and request.turn == turn:
            with anyio.move_on_after(simulator.config.comment_s) as silence:
                await request.change()
            if silence.cancelled_caught:
                yield ": ping\n\n"


def result(simulator: Simulator, request: Request) -> Response:
    """What the model answered, again and again."""
    if request.result is None:
        headers = {"x-fal-request-id": request.request_id}
        return answer(400, {"detail": "Request is still in progress"}, headers)
    return replay(simulator, request, request.result)


def replay(simulator: Simulator, request: Request, found: Result) -> Response:
    """*found* as the model gave it: its own code, headers and body."""
    headers = {"x-fal-request-id": request.request_id, **found.headers}
    if simulator.config.billable_units_header or found.code >= 400:
        headers["X-Fal-Billable-Units"] = format(found.units.normalize(), "f")
    return Response(found.body, found.code, headers, "application/json")


def cancel(simulator: Simulator, request: Request) -> Response:
    """Ask for an early end; what became of it only the ending tells."""
    if request.ended:
        return answer(400, {"status": "ALREADY_COMPLETED"})
    if simulator.queue.cancel(request):
        return answer(200, {"status": "OK"})
    simulator.book.write(request)
    return answer(202, {"status": "CANCELLATION_REQUESTED"})
