"""GET /v1/jobs/{id}/output and the links it gives."""

import hashlib
from contextlib import AsyncExitStack
from datetime import timedelta

import httpx
import pytest

from app import clock
from tests import factories as make
from tests.media.test_rescue_path import row_of, succeeded
from tests.world import build


@pytest.fixture
async def kept(world):
    """A job whose video is safe, and the video."""
    job = await succeeded(world)
    await world.rescue()
    return job, (await world.fal.get(job["output"]["video"]["url"])).content


async def link(world, job, **params):
    answer = await world.api.get(f"/v1/jobs/{job['id']}/output", params=params)
    assert answer.status_code == 307, answer.text
    return answer.headers["location"]


def stranger(world):
    """A client without a key."""
    return httpx.AsyncClient(transport=world.api._transport, base_url="http://callsheet")


async def test_the_kept_file_needs_no_key_once_linked_to(world, kept):
    job, content = kept

    answer = await stranger(world).get(await link(world, job))

    assert (answer.status_code, answer.content) == (200, content)
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["content-length"] == str(len(content))
    assert answer.headers["etag"] == f'"{hashlib.sha256(content).hexdigest()}"'
    assert answer.headers["content-disposition"] == f'inline; filename="{job["id"]}-1.mp4"'
    assert "sandbox" in answer.headers["content-security-policy"]


async def test_a_player_can_seek(world, kept):
    job, content = kept
    url, size = await link(world, job), len(content)

    for header, start, end in [("bytes=0-99", 0, 100), ("bytes=100-", 100, size), ("bytes=-50", size - 50, size)]:
        answer = await world.api.get(url, headers={"Range": header})
        assert (answer.status_code, answer.content) == (206, content[start:end])
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert answer.headers["content-length"] == str(end - start)


async def test_a_range_beyond_the_end_is_told_the_size(world, kept):
    job, content = kept

    answer = await world.api.get(await link(world, job), headers={"Range": f"bytes={len(content)}-"})

    assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
    assert answer.headers["content-range"] == f"bytes */{len(content)}"


async def test_a_part_of_another_version_is_no_use(world, kept):
    job, content = kept
    url = await link(world, job)

    other = await world.api.get(url, headers={"Range": "bytes=0-9", "If-Range": '"other"'})
    same = await world.api.get(url, headers={"Range": "bytes=0-9", "If-Range": other.headers["etag"]})
    known = await world.api.get(url, headers={"If-None-Match": other.headers["etag"]})

    assert (other.status_code, other.content) == (200, content)
    assert (same.status_code, same.content) == (206, content[:10])
    assert (known.status_code, known.content) == (304, b"")


async def test_a_head_tells_what_a_get_would_send(world, kept):
    job, content = kept

    answer = await world.api.head(await link(world, job))

    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, str(len(content)), b"")


async def test_a_link_expires(world, kept, monkeypatch):
    job, _ = kept
    url = await link(world, job)
    later = clock.now() + timedelta(minutes=15, seconds=1)
    monkeypatch.setattr(clock, "now", lambda: later)

    answer = await world.api.get(url)

    assert (answer.status_code, answer.json()["code"]) == (410, "link_expired")


@pytest.mark.parametrize("forge", [lambda url: url[:-2] + ("AA" if url[-2:] != "AA" else "BB"), lambda _: "/media/x"])
async def test_a_forged_link_leads_nowhere(world, kept, forge):
    job, _ = kept

    answer = await world.api.get(forge(await link(world, job)))

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_processes_share_the_key_of_their_links(world, kept, database_url, tmp_path):
    job, content = kept
    url = await link(world, job)
    async with AsyncExitStack() as stack:
        other = await build(stack, database_url, tmp_path)

        assert (await other.api.get(url)).content == content


async def test_a_key_that_is_set_signs_instead(database_url, tmp_path):
    async with AsyncExitStack() as stack:
        one = await build(stack, database_url, tmp_path, link_secret="a" * 32)
        other = await build(stack, database_url, tmp_path, link_secret="b" * 32)
        job = await succeeded(one)
        await one.rescue()
        url = await link(one, job)

        assert (await one.api.get(url)).status_code == 200
        assert (await other.api.get(url)).status_code == 404


async def test_what_is_not_safe_yet_says_what_it_waits_for(world):
    job = await world.order()
    queued = await world.api.get(f"/v1/jobs/{job['id']}/output")
    await world.dispatch()
    await world.at_fal(60)
    await world.ended(job["id"])

    copying = await world.api.get(f"/v1/jobs/{job['id']}/output")

    assert (queued.status_code, queued.json()["code"]) == (409, "not_safe_yet")
    assert "queued" in queued.json()["detail"]
    assert (copying.status_code, copying.json()["code"]) == (409, "not_safe_yet")
    assert "copied" in copying.json()["detail"]


async def test_what_will_never_be_safe_is_not_there(world):
    failed = await world.order("[[sim: refuse=unknown_app]] a mecha")
    await world.dispatch()
    gone = await succeeded(world, "[[sim: file_s=0]] a mecha")
    for _ in range(5):
        await world.rescue()
        await make.let_time_pass(world.db)

    answers = [await world.api.get(f"/v1/jobs/{job['id']}/output") for job in (failed, gone)]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(404, "no_output")] * 2
    assert "answers 404" in answers[1].json()["detail"]


async def test_a_file_that_the_output_does_not_have_is_not_there(world, kept):
    job, _ = kept

    answer = await world.api.get(f"/v1/jobs/{job['id']}/output", params={"number": 2})

    assert (answer.status_code, answer.json()["code"]) == (404, "no_output")


async def test_another_tenants_output_is_not_there(world, kept):
    job, _ = kept
    _, key = await make.make_key(world.db)

    answer = await world.api.get(f"/v1/jobs/{job['id']}/output", headers={"Authorization": f"Bearer {key}"})

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_a_kept_file_that_cannot_be_read_is_told(world, kept):
    job, _ = kept
    url, row = await link(world, job), await row_of(world, job)
    (world.folder / "outputs" / row.path).unlink()

    answer = await world.api.get(url)

    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
