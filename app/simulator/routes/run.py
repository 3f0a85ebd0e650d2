"""fal.run: a call that holds the connection until the video is there, plain or as a stream of events."""

import json
from collections.abc import AsyncIterator

from starlette.requests import Request as Call
from starlette.responses import Response, StreamingResponse

from app.simulator.endpoints import app_of, segments
from app.simulator.requests import Request, Result
from app.simulator.routes.answers import answer, not_found, wrong_method
from app.simulator.routes.queue import replay
from app.simulator.routes.submit import barred, order
from app.simulator.script import BadScript, Script, from_header, from_prompt
from app.simulator.simulator import Simulator


async def serve(simulator: Simulator, call: Call, path: str) -> Response:
    """POST /{full endpoint id} or …/stream: runs at once, or 429 when as many run as may."""
    if call.method != "POST":
        return wrong_method()
    parts = segments(path)
    streamed = len(parts) > 2 and parts[-1] == "stream"
    parts = parts[:-1] if streamed else parts
    app = app_of(parts)
    if app is None:
        return not_found()
    if (no := barred(simulator, call, app) or _full(simulator)) is not None:
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


def _full(simulator: Simulator) -> Response | None:
    """Nobody waits here: 429 once as many run as may."""
    if simulator.queue.running < simulator.queue.concurrency:
        return None
    kind = "concurrent_requests_limit"
    detail = [{"loc": ["body"], "msg": "Concurrent requests limit reached", "type": kind}]
    return answer(429, {"detail": detail}, {"X-Fal-needs-retry": "1", "X-Fal-Error-Type": kind})


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
