"""v3.fal.media: the CDN's uploads and downloads."""

from uuid import uuid4

from starlette.requests import Request as Call
from starlette.responses import FileResponse, Response

from app.simulator.files import TooLarge, kept_s, safe_name
from app.simulator.routes.answers import answer, bad_key, wrong_method
from app.simulator.simulator import Simulator


async def serve(simulator: Simulator, call: Call, path: str) -> Response:
    """Whatever came to `/files/…`."""
    place = path.removeprefix("/files/").strip("/")
    try:
        return await _serve(simulator, call, place)
    except TooLarge:
        return answer(413, {"detail": "File too large"})


async def _serve(simulator: Simulator, call: Call, place: str) -> Response:
    if call.method in {"GET", "HEAD"}:
        return _download(simulator, place)
    if call.method == "PUT" and simulator.files.promised(place) is not None:
        return await _put(simulator, call, place)
    # An upload id is a secret of its own: JavaScript's multipart parts carry no key.
    address, found, rest = place.rpartition("/multipart/")
    if found and rest:
        upload_id, _, part = rest.partition("/")
        return await _multipart(simulator, call, upload_id, part)
    if call.method != "POST" or address or place not in {"upload", "upload/multipart"}:
        return wrong_method()
    if not simulator.account.admits(call.headers.get("authorization")):
        return bad_key()
    return await _post(simulator, call) if place == "upload" else _begin_multipart(simulator, call)


def _download(simulator: Simulator, place: str) -> Response:
    file = simulator.files.get(place)
    if file is None:
        return answer(404, {"detail": "File not found"})
    # FileResponse answers Range itself; players seek by it.
    headers = {"Access-Control-Allow-Origin": "*", "Cache-Control": "public, max-age=31536000"}
    return FileResponse(simulator.files.folder / file.name, headers=headers, media_type=file.content_type)


async def _post(simulator: Simulator, call: Call) -> Response:
    """Python's upload: the bytes in one POST."""
    content_type = call.headers.get("content-type", "application/octet-stream")
    name = safe_name(call.headers.get("x-fal-file-name"), content_type)
    source, size, etag = await simulator.files.receive(call.stream())
    place = simulator.files.path(uuid4().hex, name)
    lives_s = kept_s(call.headers.get("x-fal-object-lifecycle"))
    simulator.files.put(place, source, content_type, size=size, kept_s=lives_s)
    await simulator.book.committed()
    return answer(200, {"access_url": simulator.files.url(place)}, {"ETag": f'"{etag}"'})


async def _put(simulator: Simulator, call: Call, place: str) -> Response:
    """The PUT to an address that was promised. Its answer is empty and must not be called JSON."""
    content_type, lives_s = simulator.files.promised(place) or ("application/octet-stream", None)
    content_type = call.headers.get("content-type", content_type)
    source, size, etag = await simulator.files.receive(call.stream())
    simulator.files.put(place, source, content_type, size=size, kept_s=lives_s)
    await simulator.book.committed()
    return Response("", 200, {"ETag": f'"{etag}"'}, "text/plain")


def _begin_multipart(simulator: Simulator, call: Call) -> Response:
    content_type = call.headers.get("content-type", "application/octet-stream")
    place = simulator.files.path(uuid4().hex, safe_name(call.headers.get("x-fal-file-name"), content_type))
    upload_id = uuid4().hex
    lives_s = kept_s(call.headers.get("x-fal-object-lifecycle"))
    simulator.files.begin_parts(upload_id, place, content_type, lives_s)
    return answer(200, {"access_url": simulator.files.url(place), "uploadId": upload_id})


async def _multipart(simulator: Simulator, call: Call, upload_id: str, part: str) -> Response:
    """One part of a large upload, or its end."""
    parts = simulator.files.parts(upload_id)
    if parts is None:
        return answer(404, {"detail": "No such upload"})
    if call.method == "POST" and part == "complete":
        listed = await call.json()
        numbers = [one.get("partNumber") for one in listed.get("parts", [])]
        if not simulator.files.join_parts(upload_id, numbers):
            return answer(400, {"detail": "Parts are missing"})
        await simulator.book.committed()
        return answer(200, {"access_url": simulator.files.url(parts.path)})
    if call.method != "PUT" or not part.isdecimal():
        return wrong_method()
    source, _, etag = await simulator.files.receive(call.stream())
    parts.names[int(part)] = source.name
    return answer(200, {"partNumber": int(part), "etag": etag}, {"ETag": f'"{etag}"'})
