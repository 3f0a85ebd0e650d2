"""rest.fal.ai: where uploads begin, tokens are minted and the webhooks' public keys are found."""

from collections.abc import Callable
from typing import Any, Final
from uuid import uuid4

from starlette.requests import Request as Call
from starlette.responses import Response

from app.simulator.clock import iso
from app.simulator.files import kept_s, safe_name
from app.simulator.routes.answers import answer, bad_key
from app.simulator.simulator import Simulator

CDN_TOKEN_S = 3600.0


async def serve(simulator: Simulator, call: Call, path: str) -> Response:
    """Whatever came to the REST host."""
    place = path.strip("/")
    if place == ".well-known/jwks.json" and call.method == "GET":
        return answer(200, simulator.keys.jwks())
    if call.method != "POST" or place not in ROUTES:
        return answer(404, {"detail": "Not Found"})
    if not simulator.account.admits(call.headers.get("authorization")):
        return bad_key()
    return ROUTES[place](simulator, call, await _json(call))


async def _json(call: Call) -> dict[str, Any]:
    try:
        body = await call.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _cdn_token(simulator: Simulator, *_: object) -> Response:
    token, expires_at = simulator.account.mint(frozenset(), CDN_TOKEN_S)
    said = {"token": token, "token_type": "Bearer", "base_url": simulator.base, "expires_at": iso(expires_at)}
    return answer(200, said)


def _place(simulator: Simulator, body: dict[str, Any]) -> tuple[str, str]:
    content_type = str(body.get("content_type") or "application/octet-stream")
    return simulator.files.path(uuid4().hex, safe_name(body.get("file_name"), content_type)), content_type


def _initiate(simulator: Simulator, call: Call, body: dict[str, Any]) -> Response:
    place, content_type = _place(simulator, body)
    simulator.files.promise(place, content_type, kept_s(call.headers.get("x-fal-object-lifecycle")))
    url = simulator.files.url(place)
    return answer(200, {"upload_url": f"{url}?signature={uuid4().hex}", "file_url": url})


def _initiate_multipart(simulator: Simulator, call: Call, body: dict[str, Any]) -> Response:
    place, content_type = _place(simulator, body)
    upload_id = uuid4().hex
    lives_s = kept_s(call.headers.get("x-fal-object-lifecycle"))
    simulator.files.begin_parts(upload_id, place, content_type, lives_s)
    url = simulator.files.url(place)
    return answer(200, {"upload_url": f"{url}/multipart/{upload_id}?signature={uuid4().hex}", "file_url": url})


def _token(simulator: Simulator, _call: Call, body: dict[str, Any]) -> Response:
    """A short-lived token for a browser: a bare JSON string."""
    apps = frozenset(str(app) for app in body.get("allowed_apps") or ())
    token, _ = simulator.account.mint(apps, float(body.get("token_expiration") or 120))
    return answer(201, token)


ROUTES: Final[dict[str, Callable[[Simulator, Call, dict[str, Any]], Response]]] = {
    "storage/auth/token": _cdn_token,
    "storage/upload/initiate": _initiate,
    "storage/upload/initiate-multipart": _initiate_multipart,
    "tokens": _token,
}
