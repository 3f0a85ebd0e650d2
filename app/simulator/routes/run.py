"""fal.run: a call that holds the connection until the video is there, plain or as a stream of events."""

import json
from collections.abc import AsyncIterator

from starlette.requests import Request as Call
from starlette.responses import Response, StreamingResponse

from app.simulator.endpoints import app_of, segments
from app.simulator.requests import Request, Result
from app.simulator.routes.answers import answer, locked, no_access, no_application, not_found
from app.simulator.routes.queue import failed_method, replay
from app.simulator.routes.submit import order
from app.simulator.script import BadScript, Script, from_header, from_prompt
from app.simulator.simulator import Simulator


async def serve(simulator: Simulator, call: Call, path: str) -> Response:
    """POST /{full endpoint id} or …/stream: runs at once, or 429 when as many run as may."""
    if call.method != "POST":
        return failed_method()
    parts = segments(path)
    streamed = len(parts) > 2 and parts[-1] == "stream"
    parts = parts[:-1] if streamed else parts
    app = app_of(parts)
    if app is None:
        return not_found()
    if (no := _barred(simulator, call, app)) is not None:
        return no
    body = await call.body()
    request = order(simulator, call, app=app, endpoint="/".join(parts), body=body)
    request.direct = True
    try:
        header = call.headers.get("x-simulator-script")
        request.words = simulator.fate(None if header is None else from_header(header), from_prompt(body))
        request.script = Script.read(request.words)
    except BadScript as error:
        return answer(400, {"detail": str(error)})
    simulator.accept(request)
    await simulator.book.committed()
    headers = {"x-fal-request-id": request.request_id}
    if streamed:
        return StreamingResponse(_stream(request), media_type="text/event-stream", headers=headers)
    return replay(simulator, request, await _ending(request))


def _barred(simulator: Simulator, call: Call, app: str) -> Response | None:
    account, queue, apps = simulator.account, simulator.queue, simulator.config.apps
    if not account.admits(call.headers.get("authorization"), app):
        return no_access(app)
    if account.lock is not None:
        return locked(account.lock)
    if apps and app not in apps:
        return no_application(app)
    if queue.running >= queue.concurrency:
        kind = "concurrent_requests_limit"
        detail = [{"loc": ["body"], "msg": "Concurrent requests limit reached", "type": kind}]
        return answer(429, {"detail": detail}, {"X-Fal-needs-retry": "1", "X-Fal-Error-Type": kind})
    return None


async def _ending(request: Request) -> Result:
    while request.result is None:
        await request.change()
    return request.result


async def _stream(request: Request) -> AsyncIterator[str]:
    """A word of progress, then the output; the last event is what clients return."""
    progress = json.dumps({"progress": 0.0, "status": "IN_PROGRESS"})
    yield f"data: {progress}\n\n"
    found = await _ending(request)
    yield f"data: {found.body}\n\n"
