"""
Which of fal's services a call is for, told by its host or, without one of fal's names, by its path.

A call for one of fal's own hosts (redirected here by a proxy) keeps its path as it is:

    queue.fal.run → queue      fal.run → run      rest.fal.ai → rest      v3.fal.media → files      api.fal.ai → v1

On any other host the first segment tells, and is taken off where it isn't part of fal's own path:

    /queue/… → queue    /run/… → run    /rest/… → rest
    /files/… → files    /v1/… → Platform API    /storage, /tokens, /.well-known → rest
    /simulator, /docs, /openapi.json → the simulator's own pages
    /{owner}/{app}/… → queue: a POST to a bare endpoint id is a submit, never a direct run

The words above can't be owners of apps on the bare root. Who has such an app uses /queue or fal's host names.
"""

from typing import Final

HOSTS: Final = {
    "queue.fal.run": "queue",
    "queue.falrun.com": "queue",
    "fal.run": "run",
    "falrun.com": "run",
    "rest.fal.ai": "rest",
    "rest.alpha.fal.ai": "rest",
    "v3.fal.media": "files",
    "v3b.fal.media": "files",
    "v2.fal.media": "files",
    "api.fal.ai": "v1",
}
MOUNTED: Final = frozenset({"queue", "run", "rest"})
IN_PLACE: Final = {
    "files": "files",
    "v1": "v1",
    "storage": "rest",
    "tokens": "rest",
    ".well-known": "rest",
    "simulator": "own",
    "docs": "own",
    "redoc": "own",
    "openapi.json": "own",
    "favicon.ico": "own",
    "": "own",
}


def door(host: str, path: str) -> tuple[str, str]:
    """The service and the path that it knows, e.g. ("queue", "/fal-ai/kling-video/requests/…")."""
    named = HOSTS.get(host.partition(":")[0].lower())
    if named is not None:
        return named, path
    first, _, rest = path.removeprefix("/").partition("/")
    if first in MOUNTED:
        return first, f"/{rest}"
    return IN_PLACE.get(first, "queue"), path
