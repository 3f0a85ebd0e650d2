"""GET /media/{token}: a kept file, for whoever holds a link to it."""

from datetime import timedelta
from functools import partial
from typing import Annotated
from urllib.parse import quote

import structlog
from fastapi import APIRouter, Path, Request, Response
from starlette.responses import StreamingResponse

from app import clock
from app.db import Database
from app.errors import AppError, NotFound, Unavailable
from app.media import links, queries
from app.media.links import Link
from app.media.ranges import Unsatisfiable, wanted
from app.media.storage import FAILURES, Storage
from app.media.tables import Output
from app.media.types import UNKNOWN

log = structlog.get_logger()

router = APIRouter(tags=["Media"], include_in_schema=False)


class LinkExpired(AppError):
    """This link has expired; ask for the job's output again."""

    status, code = 410, "link_expired"


class RangeNotSatisfiable(AppError):
    """The file has none of the bytes that Range asks for."""

    status, code = 416, "range_not_satisfiable"


async def link_to(request: Request, file: Output) -> str:
    """An address that leads to the kept *file* for a quarter of an hour, for whoever holds it."""
    storage: Storage = request.app.state.storage
    assert file.path is not None, "only a safe file is linked to"  # noqa: S101
    try:
        own = await storage.link(file.path, links.VALID_S)
    except FAILURES as error:
        raise _unreadable(error) from error
    if own is not None:
        return own
    expires_at = clock.now() + timedelta(seconds=links.VALID_S)
    link = Link(file.tenant_id, file.job_id, file.number, expires_at)
    return f"/media/{links.token(await _key(request), link)}"


@router.head("/media/{token}")
@router.get("/media/{token}")
async def serve(request: Request, token: Annotated[str, Path(max_length=200)]) -> Response:
    """The file, or the part of it that Range asks for."""
    link = links.read(await _key(request), token)
    if link is None:
        raise NotFound
    if link.expires_at <= clock.now():
        raise LinkExpired
    db: Database = request.app.state.db
    file = await db.run(partial(queries.get, tenant_id=link.tenant_id, job_id=link.job_id, number=link.number))
    if file is None or file.path is None or file.size is None or file.sha256 is None:
        raise NotFound
    return await _answer(request, file, file.path, file.size, file.sha256.hex())


async def _answer(request: Request, file: Output, path: str, size: int, sha256: str) -> Response:
    etag = f'"{sha256}"'
    kind = file.content_type or UNKNOWN
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Content-Type": kind,
        "Content-Disposition": f'inline; filename="{quote(f"{file.job_id}-{file.number}")}{_ending(kind)}"',
        "Cache-Control": f"private, max-age={links.VALID_S:.0f}, immutable",
        # Whatever the file is, it must not run as a page of ours.
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Access-Control-Allow-Origin": "*",
    }
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    try:
        # A part of another version of the file is no use: then If-Range asks for the whole.
        fits = request.headers.get("if-range", etag) == etag
        part = wanted(request.headers.get("range"), size) if fits else None
    except Unsatisfiable:
        raise RangeNotSatisfiable(headers={"Content-Range": f"bytes */{size}"}) from None
    start, end = part or (0, size)
    headers["Content-Length"] = str(end - start)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    code = 200 if part is None else 206
    if request.method == "HEAD":
        return Response(status_code=code, headers=headers)
    storage: Storage = request.app.state.storage
    try:
        return StreamingResponse(await storage.stream(path, start, end), code, headers=headers)
    except FAILURES as error:
        raise _unreadable(error) from error


async def _key(request: Request) -> bytes:
    state = request.app.state
    if state.link_key is None:
        db: Database = state.db
        state.link_key = await db.run(queries.link_key)
    found: bytes = state.link_key
    return found


def _unreadable(error: Exception) -> Unavailable:
    log.error("kept_file_unreadable", why=type(error).__name__)
    return Unavailable("The kept file can't be read right now.", headers={"Retry-After": "5"})


def _ending(kind: str) -> str:
    known = {"video/mp4": ".mp4", "video/webm": ".webm", "image/png": ".png", "image/jpeg": ".jpg"}
    return known.get(kind, "")
