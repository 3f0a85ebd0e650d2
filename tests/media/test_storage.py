"""Keeping files: whole or not at all."""

import asyncio
from pathlib import Path

import pytest
from obstore.store import from_url

from app.media.storage import Storage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


def names(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]


async def some(*parts: bytes, then: Exception | None = None):
    for part in parts:
        yield part
    if then is not None:
        raise then


async def test_what_is_put_can_be_had_whole_and_in_part(folder):
    storage = Storage(None, folder)

    await storage.put("a/b/1", some(b"vid", b"eo"), "video/mp4")

    assert await storage.size("a/b/1") == 5
    assert await storage.read("a/b/1", 1, 3) == b"ide"
    assert b"".join([part async for part in await storage.stream("a/b/1", 2, 5)]) == b"deo"
    assert await storage.link("a/b/1", 60) is None


async def test_half_a_file_is_never_seen(folder):
    storage = Storage(f"file://{folder}", folder)

    with pytest.raises(ZeroDivisionError):
        await storage.put("a/1", some(b"x" * (6 << 20), b"y", then=ZeroDivisionError()), "video/mp4")

    assert names(folder) == []


async def test_what_a_killed_worker_left_is_swept(folder):
    storage = Storage(None, folder)
    begun = asyncio.Event()

    async def stuck():
        yield b"x"
        begun.set()
        await asyncio.Event().wait()

    writing = asyncio.create_task(storage.put("a/1/1", stuck(), "video/mp4"))
    await begun.wait()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await storage.put("a/1/2", some(b"whole"), "video/mp4")
    await storage.put("a/1/10", some(b"my successor's"), "video/mp4")
    await storage.put("a/2/1", some(b"other"), "video/mp4")

    await storage.sweep("a/1", before=9)

    assert names(folder) == ["a/1/10", "a/2/1"]


async def test_sweeping_nothing_is_fine(folder):
    storage = Storage(None, folder)

    await storage.sweep("a/1", before=9)
    await storage.drop("a/1/1")


async def test_a_bucket_signs_its_own_links(folder):
    storage = Storage("s3://bucket/kept", folder)
    storage.__dict__["_store"] = from_url(
        "s3://bucket/kept", access_key_id="id", secret_access_key="secret", region="eu-west-1"
    )

    link = await storage.link("a/1", 900)

    assert link is not None
    assert "/kept/a/1?" in link
    assert "X-Amz-Expires=900" in link
    assert "secret" not in link
