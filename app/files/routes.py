"""POST /v1/files, GET /v1/files, GET and DELETE /v1/files/{id}, GET /v1/files/{id}/content; GET /files/{token}."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response

from app import paging
from app.db import Database
from app.errors import BodyTooLarge, InvalidRequest, NotFound, Unavailable, problems
from app.files import queries
from app.files.forms import Form
from app.files.inbox import FileInUse, FilesFull, Inbox, safe_name
from app.files.incoming import EmptyFile, Incoming, TooSlow, UnknownKind
from app.files.kinds import ENDINGS
from app.files.reaching import link_to
from app.files.schemas import FilePage, FileView
from app.files.tables import File
from app.media import links, serving
from app.tenants.auth import JobsWriter, MayRead, MayUpload, Unauthorized
from app.tenants.caller import Caller, Forbidden

router = APIRouter(prefix="/v1/files", tags=["Files"])
served = APIRouter(tags=["Files"], include_in_schema=False)

FORM_SLACK: Final = 16_384
"""What a form may take beside its file."""
BODY: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "string", "format": "binary"}},
            },
            "example": {"file": "(the bytes of first-frame.png)"},
        },
        "application/octet-stream": {
            "schema": {"type": "string", "format": "binary"},
            "example": "(the bytes of first-frame.png)",
        },
    },
}


@router.post(
    "",
    operation_id="create_file",
    summary="Upload a file",
    status_code=201,
    openapi_extra={"requestBody": BODY},
    responses=problems(
        Unauthorized,
        Forbidden,
        TooSlow,
        FilesFull,
        BodyTooLarge,
        UnknownKind,
        EmptyFile,
        InvalidRequest,
        Unavailable,
    ),
)
async def create(
    request: Request,
    response: Response,
    caller: MayUpload,
    filename: Annotated[
        str | None, Query(max_length=300, description="What to call it, if the body is the file itself")
    ] = None,
    end_user: Annotated[
        str | None, Query(max_length=200, pattern=r"^[^\x00]*$", description="Whose it is, of your users")
    ] = None,
) -> FileView:
    """
    An image, video or sound for a job's input: as the one file of a form, or as the body itself.

    Write the answer's `url` where an input takes an address. What the file is, is told from its bytes: png, jpg, webp,
    gif, avif, heic, mp4, mov, webm, mp3 and wav are taken. Sending it again makes another file.

    What a browser token uploads is its end user's, whom `end_user` names for a key. Every key of yours can use it, of
    browser tokens only those of the same end user.
    """
    inbox: Inbox = request.app.state.inbox
    owner = caller.acting_for(end_user)
    is_form = request.headers.get("content-type", "").lower().startswith("multipart/form-data")
    form = Form(request) if is_form else None
    incoming = Incoming(form.file() if form else request.stream(), inbox.limits)
    at_most = _announced(request, inbox.limits.size)
    received = await inbox.receive(caller.tenant_id, incoming, at_most=at_most, end_user=owner)
    named = replace(received, name=safe_name(filename or (form.name if form else None)))
    try:
        file = await inbox.db.run(partial(inbox.show, file=named))
    except BaseException:
        await inbox.discard(caller.tenant_id, received.id, received.path)
        raise
    response.headers["Location"] = f"/v1/files/{file.id}"
    return FileView.of(file)


@router.get(
    "",
    operation_id="list_files",
    summary="List files",
    responses=problems(Unauthorized, Forbidden, InvalidRequest, Unavailable),
)
async def index(request: Request, caller: MayRead, limit: paging.Limit = 20, cursor: paging.Cursor = None) -> FilePage:
    """Newest first."""
    before = paging.decode(cursor)
    db: Database = request.app.state.db
    async with db.reading_as(caller.tenant_id) as session:
        files = await queries.page(session, caller, limit=limit + 1, before=before)
    shown, next_cursor = paging.cut(files, limit)
    return FilePage(data=[FileView.of(file) for file in shown], next_cursor=next_cursor)


@router.get(
    "/{file_id}",
    operation_id="get_file",
    summary="Look at a file",
    responses=problems(Unauthorized, Forbidden, NotFound, InvalidRequest, Unavailable),
)
async def show(request: Request, caller: MayRead, file_id: Annotated[UUID, Path()]) -> FileView:
    """What it is, how large, and until when it is kept."""
    return FileView.of(await _mine(request, caller, file_id))


@router.delete(
    "/{file_id}",
    operation_id="delete_file",
    summary="Delete a file",
    status_code=204,
    responses=problems(Unauthorized, Forbidden, NotFound, FileInUse, InvalidRequest, Unavailable),
)
async def delete(request: Request, caller: JobsWriter, file_id: Annotated[UUID, Path()]) -> Response:
    """Refused while an unfinished job uses it. What was uploaded to fal for a job ends there by itself."""
    inbox: Inbox = request.app.state.inbox
    if not await inbox.delete(caller.tenant_id, file_id):
        raise NotFound("No file has this id.")
    return Response(status_code=204)


@router.get(
    "/{file_id}/content",
    operation_id="get_file_content",
    summary="Fetch a file",
    status_code=307,
    response_class=Response,
    responses={
        307: {
            "description": "The file is there, for whoever holds the link",
            "headers": {"Location": {"description": "Works for 15 minutes", "schema": {"type": "string"}}},
        },
        **problems(Unauthorized, Forbidden, NotFound, InvalidRequest, Unavailable),
    },
)
async def content(request: Request, caller: MayRead, file_id: Annotated[UUID, Path()]) -> Response:
    """Leads to the file by a signed link that needs no key and works for 15 minutes."""
    file = await _mine(request, caller, file_id)
    token = links.token(await serving.key(request), link_to(file, timedelta(seconds=links.VALID_S)))
    return Response(status_code=307, headers={"Location": f"/files/{token}"})


@served.head("/files/{token}")
@served.get("/files/{token}")
async def serve(request: Request, token: Annotated[str, Path(max_length=200)]) -> Response:
    """The file, or the part of it that Range asks for, for whoever holds a link to it; fal among them."""
    link = await serving.followed(request, token)
    db: Database = request.app.state.db
    async with db.reading_as(link.tenant_id) as session:
        file = await queries.get(session, link.tenant_id, link.job_id) if link.number == 0 else None
    if file is None or file.sha256 is None or file.content_type is None:
        raise NotFound
    name = f"{file.id}{ENDINGS[file.content_type]}"
    return await serving.answer(
        request, path=file.path, size=file.size, sha256=file.sha256, content_type=file.content_type, name=name
    )


async def _mine(request: Request, caller: Caller, file_id: UUID) -> File:
    db: Database = request.app.state.db
    async with db.reading_as(caller.tenant_id) as session:
        file = await queries.seen(session, caller, file_id)
    if file is None:
        raise NotFound("No file has this id.")
    return file


def _announced(request: Request, most: int) -> int:
    """The most bytes that the file can have, by what its sender says."""
    said = request.headers.get("content-length", "")
    return min(int(said), most) or 1 if said.isdecimal() else most
