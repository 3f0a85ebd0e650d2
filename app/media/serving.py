"""Handing out kept files: what a signed link leads to, whole or in parts, and never as a page of ours."""

import structlog
from fastapi import Request, Response
from starlette.responses import StreamingResponse

from app import clock
from app.db import Database
from app.errors import AppError, NotFound, Unavailable
from app.media import links, queries
from app.media.links import Link
from app.media.ranges import Unsatisfiable, wanted
from app.media.storage import FAILURES, Storage

log = structlog.get_logger()


class LinkExpired(AppError):
    """This link has expired; ask for a new one."""

    status, code = 410, "link_expired"


class RangeNotSatisfiable(AppError):
    """The file has none of the bytes that Range asks for."""

    status, code = 416, "range_not_satisfiable"


async def followed(request: Request, token: str) -> Link:
    """The link in *token*. Raises NotFound if it isn't one of ours, or LinkExpired."""
    link = links.read(await key(request), token)
    if link is None:
        raise NotFound
    if link.expires_at <= clock.now():
        raise LinkExpired
    return link


async def answer(request: Request, *, path: str, size: int, sha256: bytes, content_type: str, name: str) -> Response:
    """The file at *path*, or the part of it that Range asks for. Raises RangeNotSatisfiable, or Unavailable."""
    etag = f'"{sha256.hex()}"'
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Content-Type": content_type,
        "Content-Disposition": f'inline; filename="{name}"',
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
        raise unreadable(error) from error


async def key(request: Request) -> bytes:
    """The key that signs links, read once by each process."""
    state = request.app.state
    if state.link_key is None:
        db: Database = state.db
        state.link_key = await db.run(queries.link_key)
    found: bytes = state.link_key
    return found


def unreadable(error: Exception) -> Unavailable:
    """What a caller hears when our storage fails."""
    log.error("kept_file_unreadable", why=type(error).__name__)
    return Unavailable("The kept file can't be read right now.", headers={"Retry-After": "5"})
