"""GET /media/{token}: a kept file, for whoever holds a link to it."""

from datetime import timedelta
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from app import clock
from app.db import Database
from app.errors import NotFound
from app.media import links, queries, serving
from app.media.links import Link
from app.media.storage import FAILURES, Storage
from app.media.tables import Output
from app.media.types import UNKNOWN

router = APIRouter(tags=["Media"], include_in_schema=False)


async def link_to(request: Request, file: Output) -> str:
    """An address that leads to the kept *file* for a quarter of an hour, for whoever holds it."""
    storage: Storage = request.app.state.storage
    assert file.path is not None, "only a safe file is linked to"  # noqa: S101
    try:
        own = await storage.link(file.path, links.VALID_S)
    except FAILURES as error:
        raise serving.unreadable(error) from error
    if own is not None:
        return own
    expires_at = clock.now() + timedelta(seconds=links.VALID_S)
    link = Link(file.tenant_id, file.job_id, file.number, expires_at)
    return f"/media/{links.token(await serving.key(request), link)}"


@router.head("/media/{token}")
@router.get("/media/{token}")
async def serve(request: Request, token: Annotated[str, Path(max_length=200)]) -> Response:
    """The file, or the part of it that Range asks for."""
    link = await serving.followed(request, token)
    db: Database = request.app.state.db
    file = await db.run(partial(queries.get, tenant_id=link.tenant_id, job_id=link.job_id, number=link.number))
    if file is None or file.path is None or file.size is None or file.sha256 is None:
        raise NotFound
    kind = file.content_type or UNKNOWN
    name = f"{file.job_id}-{file.number}{_ending(kind)}"
    return await serving.answer(
        request, path=file.path, size=file.size, sha256=file.sha256, content_type=kind, name=name
    )


def _ending(kind: str) -> str:
    known = {"video/mp4": ".mp4", "video/webm": ".webm", "image/png": ".png", "image/jpeg": ".jpg"}
    return known.get(kind, "")
