"""POST /v1/files and what follows, over real sockets: streamed, bounded, and nothing left of what breaks off."""

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from sqlalchemy import func, select

from app.db import Database
from app.files.tables import File
from app.main import create_app
from app.media.download import Limits
from app.settings import Settings
from tests import factories as make
from tests.files import samples

LIMIT = 3_000_000


@dataclass
class Served:
    """Callsheet on a socket of its own."""

    api: httpx.AsyncClient
    db: Database
    folder: Path
    app: Any
    port: int
    key: str

    def left(self) -> list[Path]:
        """Every file in storage, whole or half."""
        return [path for path in (self.folder / "outputs").rglob("*") if path.is_file()]

    async def rows(self) -> int:
        async with self.db.session() as session:
            return (await session.scalars(select(func.count()).select_from(File))).one()

    async def nothing_left(self) -> None:
        async with asyncio.timeout(60):
            while await self.rows() or self.left():
                await asyncio.sleep(0.01)


@pytest.fixture
async def served(db: Database, database_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    _, key = await make.make_key(db)
    settings = Settings.read(
        database_url=database_url,
        fal_key="test",
        data=tmp_path,
        upload_limit_bytes=LIMIT,
        files_limit=3,
        files_limit_bytes=2 * LIMIT,
        _env_file=None,
    )
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, ws="none"))
    running = asyncio.create_task(server.serve())
    async with asyncio.timeout(60):
        while not server.started:
            await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as api:
        yield Served(api, db, tmp_path, app, port, key)
    server.should_exit = True
    await running


def impatient(served: Served, **limits: float) -> None:
    """Let the service wait for slow callers only this long."""
    object.__setattr__(served.app.state.inbox, "limits", Limits(size=LIMIT, **limits))


async def in_parts(content: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


@asynccontextmanager
async def begun(served: Served, body: bytes, *headers: str) -> AsyncIterator[socket.socket]:
    """An upload by hand, its head and the first bytes of its body sent. asyncio's streams read nothing once reset."""
    head = ["POST /v1/files HTTP/1.1", "Host: x", f"Authorization: Bearer {served.key}", *headers, "", ""]
    with socket.socket() as sock:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", served.port))
        await loop.sock_sendall(sock, "\r\n".join(head).encode() + body)
        yield sock


async def answer_to(sock: socket.socket) -> bytes:
    """What is answered, to the end."""
    answer = b""
    async with asyncio.timeout(20):
        # What is sent after the last word is answered with a reset.
        with suppress(ConnectionResetError):
            while part := await asyncio.get_running_loop().sock_recv(sock, 65_536):
                answer += part
    return answer


async def test_a_file_is_kept_told_listed_and_served_back(served):
    content = samples.png_of(2_500_000)

    answer = await served.api.post("/v1/files?filename=../first frame.png", content=in_parts(content))

    told = answer.json()
    assert answer.status_code == 201, answer.text
    assert told["url"] == f"callsheet://files/{told['id']}"
    assert (told["content_type"], told["size"], told["name"]) == ("image/png", len(content), "first frame.png")
    assert told["sha256"] == hashlib.sha256(content).hexdigest()
    assert (await served.api.get(answer.headers["location"])).json() == told
    assert (await served.api.get("/v1/files")).json() == {"data": [told], "next_cursor": None}

    link = (await served.api.get(f"/v1/files/{told['id']}/content")).headers["location"]
    async with httpx.AsyncClient(base_url=served.api.base_url, timeout=60) as stranger:
        whole = await stranger.get(link)
        part = await stranger.get(link, headers={"Range": "bytes=10-19"})
    assert (whole.content, whole.headers["content-type"]) == (content, "image/png")
    assert "sandbox" in whole.headers["content-security-policy"]
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert (part.status_code, part.content) == (206, content[10:20])


async def test_the_file_of_a_form_is_the_same_file(served):
    content = samples.png_of(500_000)

    answer = await served.api.post(
        "/v1/files", data={"note": "x" * 2000}, files={"file": ("..\\a<b>.exe", content, "text/html")}
    )

    assert answer.status_code == 201, answer.text
    assert (answer.json()["content_type"], answer.json()["name"]) == ("image/png", "a_b_.exe")
    assert answer.json()["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("content", [samples.SVG, samples.HTML, samples.MATROSKA])
async def test_what_its_bytes_do_not_show_to_be_a_medium_is_refused(served, content):
    answer = await served.api.post("/v1/files", content=content, headers={"Content-Type": "image/png"})

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_file")
    await served.nothing_left()


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"content": b""}, 422, "no_file"),
        ({"files": {"file": ("a.png", b"")}}, 422, "no_file"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 422, "invalid_request"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=y"}}, 422, "invalid_request"),
        ({"files": [("a", ("a.png", samples.PNG)), ("b", ("b.png", samples.PNG))]}, 422, "invalid_request"),
    ],
)
async def test_a_request_without_one_whole_file_leaves_nothing(served, options, status, code):
    answer = await served.api.post("/v1/files", **options)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    await served.nothing_left()


async def test_a_file_that_is_too_large_is_refused_announced_or_not(served):
    content = samples.png_of(LIMIT + 20_000)

    announced = await served.api.post("/v1/files", content=content)
    # One byte too many, the last: a caller who is still sending may miss the answer.
    streamed = await served.api.post("/v1/files", content=in_parts(content[: LIMIT + 1]))

    assert [answer.status_code for answer in (announced, streamed)] == [413, 413]
    assert {answer.json()["code"] for answer in (announced, streamed)} == {"body_too_large"}
    await served.nothing_left()


async def test_an_upload_that_falls_silent_ends(served):
    impatient(served, silence_s=0.2)

    async with begun(served, samples.png_of(1000), "Content-Length: 5000") as sock:
        answer = await answer_to(sock)

    assert answer.startswith(b"HTTP/1.1 408")
    assert b"upload_too_slow" in answer
    await served.nothing_left()


async def test_an_upload_that_dawdles_ends(served):
    impatient(served, grace_s=0.2, bytes_per_s=1e9)

    async def dawdle(sock: socket.socket) -> None:
        with suppress(ConnectionError):
            while True:
                await asyncio.get_running_loop().sock_sendall(sock, bytes(10))
                await asyncio.sleep(0.02)

    async with begun(served, samples.png_of(1000), "Content-Length: 1000000") as sock, asyncio.TaskGroup() as tasks:
        tasks.create_task(dawdle(sock))
        answer = await answer_to(sock)

    assert answer.startswith(b"HTTP/1.1 408")
    await served.nothing_left()


@pytest.mark.parametrize("size", [100, 2_000_000])
async def test_an_upload_that_breaks_off_leaves_nothing(served, size):
    async with begun(served, samples.png_of(size), f"Content-Length: {LIMIT}"), asyncio.timeout(60):
        while not await served.rows():
            await asyncio.sleep(0.01)

    await served.nothing_left()


async def test_a_form_that_breaks_off_at_a_part_leaves_nothing(served):
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n' + samples.PNG

    answer = await served.api.post(
        "/v1/files", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"}
    )

    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "malformed_form")
    await served.nothing_left()


async def test_a_tenant_has_room_for_so_many_files_however_they_come(served):
    answers = await asyncio.gather(*(served.api.post("/v1/files", content=samples.PNG) for _ in range(6)))

    codes = sorted(answer.status_code for answer in answers)
    assert codes == [201] * 3 + [409] * 3
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"files_full"}
    assert await served.rows() == 3


async def test_a_tenant_has_room_for_so_many_bytes(served):
    for _ in range(2):
        assert (await served.api.post("/v1/files", content=samples.png_of(LIMIT - 1000))).status_code == 201

    answer = await served.api.post("/v1/files", content=samples.png_of(10_000))

    assert (answer.status_code, answer.json()["code"]) == (409, "files_full")


async def test_storage_that_fails_is_told_and_leaves_nothing(served):
    (served.folder / "outputs").write_text("not a folder")

    answer = await served.api.post("/v1/files", content=samples.PNG)

    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert await served.rows() <= 1


async def test_the_same_content_may_come_twice_and_pages_hold_still(served):
    told = [(await served.api.post("/v1/files", content=samples.PNG)).json() for _ in range(3)]

    first = (await served.api.get("/v1/files?limit=2")).json()
    second = (await served.api.get("/v1/files", params={"limit": 2, "cursor": first["next_cursor"]})).json()

    assert [*first["data"], *second["data"]] == told[::-1]
    assert second["next_cursor"] is None


async def test_a_deleted_file_is_gone_from_the_list_and_from_storage(served):
    told = (await served.api.post("/v1/files", content=samples.PNG)).json()
    link = (await served.api.get(f"/v1/files/{told['id']}/content")).headers["location"]

    answer = await served.api.delete(f"/v1/files/{told['id']}")
    again = await served.api.delete(f"/v1/files/{told['id']}")

    assert (answer.status_code, again.status_code) == (204, 404)
    assert (await served.api.get(link)).status_code == 404
    await served.nothing_left()


async def test_another_tenants_file_is_not_there(served):
    told = (await served.api.post("/v1/files", content=samples.PNG)).json()
    _, key = await make.make_key(served.db)
    headers = {"Authorization": f"Bearer {key}"}
    place = f"/v1/files/{told['id']}"

    answers = [
        await served.api.get(place, headers=headers),
        await served.api.get(f"{place}/content", headers=headers),
        await served.api.delete(place, headers=headers),
    ]

    assert [answer.status_code for answer in answers] == [404] * 3
    assert (await served.api.get("/v1/files", headers=headers)).json()["data"] == []
