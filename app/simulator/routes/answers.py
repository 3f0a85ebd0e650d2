"""Answers that several of fal's services give alike."""

import json
from typing import Any

import httpx
from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class AnswerLost(httpx.RemoteProtocolError):
    """
    The connection dropped instead of an answer.

    An httpx error because a client on ASGITransport sees the app's own exceptions, and this is the one that
    it would see of a socket.
    """


class Dropped(Response):
    """No answer: the connection is cut."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        # uvicorn hands each call a bound method of its own cycle, and that knows the socket.
        transport = getattr(getattr(receive, "__self__", None), "transport", None)
        if transport is None:
            raise AnswerLost("Server disconnected without sending a response.")
        transport.abort()
        # Until uvicorn knows it too; it would complain of a missing answer otherwise.
        while (await receive())["type"] != "http.disconnect":
            pass


def answer(code: int, body: Any, headers: dict[str, str] | None = None) -> Response:
    """*body* as JSON."""
    return Response(json.dumps(body), code, headers, "application/json")


def not_found() -> Response:
    return answer(404, {"status": "NOT_FOUND"})


def wrong_method() -> Response:
    return answer(405, {"detail": "Method Not Allowed"})


def bad_key() -> Response:
    return answer(401, {"detail": "invalid key credentials"})


def no_access(app: str) -> Response:
    text = f'Cannot access application "{app}". Authentication is required to access this application.'
    return answer(401, {"detail": text})


def locked(reason: str) -> Response:
    text = f"User is locked. Reason: {reason}. Top up your balance at fal.ai/dashboard/billing"
    return answer(403, {"detail": text})


def no_application(app: str) -> Response:
    return answer(404, {"detail": f'Application "{app.rpartition("/")[2]}" not found'})


def nginx(code: int) -> Response:
    """What a load balancer says when it has nobody to pass a call to: HTML, without a request id."""
    text = {502: "Bad Gateway", 503: "Service Temporarily Unavailable", 504: "Gateway Time-out"}.get(code, "Error")
    page = f"<html><head><title>{code} {text}</title></head><body><center>nginx</center></body></html>"
    return Response(page, code, media_type="text/html")


def failed(code: int) -> Response:
    """An error of fal's own that names no request."""
    text = {429: "Too many requests", 408: "Request timeout", 409: "Conflict", 403: "Forbidden"}
    return answer(code, {"detail": text.get(code, "Internal Server Error" if code == 500 else "Service unavailable")})
