"""Files in the inputs of jobs: kept, named by data: URIs too, reached by fal, and let go of afterwards."""

import asyncio
import base64
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import select, text, update

from app.files.pruner import prune
from app.files.tables import File, FileUse
from app.jobs import lifecycle
from app.jobs.tables import Attempt
from app.settings import DEFAULT
from tests import factories as make
from tests.databases import done_or_blocked
from tests.files import samples
from tests.world import build

MODEL = "fal-ai/kling-video/o3/4k/image-to-video"


def an_input(url, prompt="a mecha lands"):
    return {"prompt": prompt, "image_url": url, "duration": "5"}


def data_uri(content=samples.PNG, kind="image/png"):
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


async def upload(world, content=samples.PNG):
    answer = await world.api.post("/v1/files", content=content)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def order(world, url, prompt="a mecha lands", **body):
    return await world.order(model=MODEL, input=an_input(url, prompt), **body)


async def refused(world, url, **options):
    answer = await world.api.post("/v1/jobs", json={"model": MODEL, "input": an_input(url)}, **options)
    return answer, [(fault["pointer"], fault["code"]) for fault in answer.json()["errors"]]


async def files(world):
    async with world.db.session() as session:
        return list(await session.scalars(select(File)))


async def attempts(world, job):
    return await make.attempts_of(world.db, await make.look(world.db, await make.key_of_id(world.db, job["id"])))


def in_storage(world):
    return [path for path in (world.folder / "outputs").rglob("*") if path.is_file()]


@pytest.fixture
async def alone(database_url, tmp_path):
    """A world that fal can't reach: no PUBLIC_URL."""
    async with AsyncExitStack() as stack:
        yield await build(stack, database_url, tmp_path, public_url=None)


async def test_fal_is_led_to_us_where_it_can_reach_us(world):
    file = await upload(world)
    job = await order(world, file["url"])

    await world.dispatch()

    (attempt,) = await attempts(world, job)
    sent = attempt.sent_urls[file["url"]]
    assert sent.startswith("http://callsheet/files/")
    async with httpx.AsyncClient(transport=world.api._transport) as fal:
        assert (await fal.get(sent)).content == samples.PNG
    assert (await world.job(job["id"]))["input"]["image_url"] == file["url"]
    await world.at_fal(60)
    assert (await world.ended(job["id"]))["status"] == "succeeded"


async def test_a_file_is_uploaded_to_fal_once_where_fal_cannot_reach_us(alone):
    file = await upload(alone, samples.png_of(300_000))
    jobs = [await order(alone, file["url"]) for _ in range(2)]

    for _ in jobs:
        alone_at_once = await alone.dispatch()
    assert alone_at_once == 0

    first, second = [(await attempts(alone, job))[0].sent_urls[file["url"]] for job in jobs]
    assert first.startswith("http://fal/files/")
    assert (await alone.fal.get(first)).content == samples.png_of(300_000)
    assert (await alone.fal.get(second)).status_code == 200

    third = await order(alone, file["url"])
    await alone.dispatch()
    assert (await attempts(alone, third))[0].sent_urls[file["url"]] in {first, second}


async def test_an_upload_that_fal_refuses_is_tried_again_with_nothing_sent(alone):
    file = await upload(alone)
    job = await order(alone, file["url"])
    uploads = alone.parts.accounts.get(DEFAULT).uploads
    http, uploads._http = (
        uploads._http,
        httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(503))),
    )

    await alone.dispatch()
    waiting = await alone.job(job["id"])
    books = await alone.books()
    await uploads._http.aclose()
    uploads._http = http
    await make.let_time_pass(alone.db)
    await alone.dispatch()

    assert (waiting["status"], waiting["cost"]["held"], books) == ("queued", waiting["cost"]["quoted"], [])
    assert (await alone.job(job["id"]))["status"] == "submitted"
    assert [attempt.status for attempt in await attempts(alone, job)] == ["refused", "submitted"]


@pytest.mark.parametrize("public_url", [None, "http://callsheet"])
async def test_a_lost_answer_is_found_by_what_was_really_sent(database_url, tmp_path, public_url):
    async with AsyncExitStack() as stack:
        world = await build(stack, database_url, tmp_path, public_url=public_url)
        file = await upload(world)
        job = await order(world, file["url"], "[[sim: lost_answer, webhook=never]] a mecha")
        await world.dispatch()
        unknown = await world.job(job["id"])
        await world.at_fal(60)

        done = await world.reconciled(job["id"])

        (request,) = await world.books()
        assert unknown["status"] == "submit_unknown"
        assert (done["status"], done["attempts"]) == ("succeeded", 1)
        assert done["fal"]["request_id"] == request["request_id"]


async def test_between_two_orders_that_sent_the_same_address_nothing_is_guessed(alone):
    file = await upload(alone)
    prompt = "[[sim: lost_answer, webhook=never]] a mecha"
    mine = await order(alone, file["url"], prompt)
    await alone.dispatch()
    (attempt,) = await attempts(alone, mine)
    # Whoever learned fal's address could order with it.
    other = await order(alone, attempt.sent_urls[file["url"]], prompt)
    await alone.dispatch()
    await alone.at_fal(60)
    for _ in range(3):
        await make.let_time_pass(alone.db)
        await alone.ask()

    assert {(await alone.job(job["id"]))["status"] for job in (mine, other)} == {"submit_unknown"}


async def test_a_worker_that_dies_while_it_uploads_has_sent_nothing(alone):
    file = await upload(alone)
    job = await order(alone, file["url"])
    (intent,) = await make.take(alone.db)
    await make.let_time_pass(alone.db)

    await alone.ask()

    assert (await alone.job(job["id"]))["status"] == "queued"
    late = await alone.db.run(partial(lifecycle.about_to_send, key=make.key_of(intent), urls={"a": "b"}))
    assert late is False
    await make.let_time_pass(alone.db)
    await alone.dispatch()
    assert (await alone.job(job["id"]))["status"] == "submitted"
    assert len(await alone.books()) == 1


async def test_a_worker_that_dies_after_it_said_what_it_sends_leaves_a_doubt(alone):
    file = await upload(alone)
    job = await order(alone, file["url"])
    (intent,) = await make.take(alone.db)
    say = partial(lifecycle.about_to_send, key=make.key_of(intent), urls={file["url"]: "https://fal/x"})
    assert await alone.db.run(say)
    assert await alone.db.run(say)
    await make.let_time_pass(alone.db)

    await alone.ask()

    assert (await alone.job(job["id"]))["status"] == "submit_unknown"


async def test_what_is_no_file_of_yours_is_told_by_its_pointer(world):
    file = await upload(world)
    _, key = await make.make_key(world.db)

    theirs = await refused(world, file["url"], headers={"Authorization": f"Bearer {key}"})
    unknown = await refused(world, f"callsheet://files/{uuid4()}")
    malformed = await refused(world, "callsheet://files/1")

    for answer, faults in (theirs, unknown, malformed):
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_order")
        assert faults == [("/input/image_url", "unknown_file")]


async def test_a_data_uri_becomes_a_file_and_the_job_stays_small(world):
    content = samples.png_of(2_000_000)

    job = await order(world, data_uri(content))

    (file,) = await files(world)
    assert job["input"]["image_url"] == f"callsheet://files/{file.id}"
    assert (file.size, file.content_type, file.stored_at is not None) == (2_000_000, "image/png", True)
    await world.dispatch()
    assert (await world.job(job["id"]))["status"] == "submitted"


async def test_the_same_order_with_the_same_data_uri_is_the_same_job(world):
    body = {"model": MODEL, "input": an_input(data_uri())}
    headers = {"Idempotency-Key": "one"}

    first = await world.api.post("/v1/jobs", json=body, headers=headers)
    again = await world.api.post("/v1/jobs", json=body, headers=headers)
    other = await world.api.post(
        "/v1/jobs", json={**body, "input": an_input(data_uri(samples.GIF, "image/gif"))}, headers=headers
    )

    assert (first.status_code, again.status_code, other.status_code) == (202, 200, 409)
    assert again.json() == first.json()
    assert len(await files(world)) == len(in_storage(world)) == 1


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("data:image/png;base64,not base64!", "malformed"),
        ("data:image/png;base64,AAA", "malformed"),
        ("data:image/png,AAAA", "malformed"),
        (data_uri(samples.SVG, "image/png"), "unsupported_file"),
        (data_uri(samples.png_of(10_000_001)), "too_large"),
    ],
)
async def test_a_data_uri_that_is_no_file_is_told_by_its_pointer(world, uri, code):
    answer, faults = await refused(world, uri)

    assert (answer.status_code, faults) == (422, [("/input/image_url", code)])
    assert (await files(world), in_storage(world)) == ([], [])


async def test_an_order_that_cannot_be_paid_leaves_no_file(world):
    _, key = await make.make_key(world.db, credit_limit="0.01")

    answer, _ = await refused(world, data_uri(), headers={"Authorization": f"Bearer {key}"})

    assert (answer.status_code, answer.json()["code"]) == (402, "insufficient_funds")
    assert (await files(world), in_storage(world)) == ([], [])


async def test_apart_from_data_uris_an_order_is_bounded_as_before(world):
    wanted = {"model": MODEL, "input": an_input("https://x.example/" + "x" * 1_100_000)}

    answer = await world.api.post("/v1/jobs", json=wanted)

    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_a_file_cannot_be_deleted_while_a_job_needs_it(world):
    file = await upload(world)
    job = await order(world, file["url"])

    during = await world.api.delete(f"/v1/files/{file['id']}")
    await world.cancel(job["id"])
    after = await world.api.delete(f"/v1/files/{file['id']}")

    assert (during.status_code, during.json()["code"], after.status_code) == (409, "file_in_use", 204)
    assert (await files(world), in_storage(world)) == ([], [])
    assert (await refused(world, file["url"]))[1] == [("/input/image_url", "unknown_file")]


async def overdue(world, *file_ids):
    async with world.db.session() as session:
        past = File.prune_at - timedelta(days=60)
        await session.execute(update(File).where(File.id.in_(map(UUID, file_ids))).values(prune_at=past))


async def test_only_files_whose_time_is_over_and_that_nobody_needs_are_pruned(world):
    fresh, old, used, ended = [await upload(world) for _ in range(4)]
    await order(world, used["url"])
    await world.cancel((await order(world, ended["url"]))["id"])
    await overdue(world, old["id"], used["id"], ended["id"])

    removed = [await prune(world.db, world.parts.storage) for _ in range(2)]

    assert removed == [2, 0]
    assert {str(file.id) for file in await files(world)} == {fresh["id"], used["id"]}
    assert len(in_storage(world)) == 2


async def test_pruning_is_bounded(world):
    names = [(await upload(world))["id"] for _ in range(3)]
    await overdue(world, *names)

    assert [await prune(world.db, world.parts.storage, limit=2) for _ in range(2)] == [2, 1]


async def test_what_a_crash_left_of_an_upload_is_swept(world):
    caller = await make.make_tenant(world.db)
    inbox = world.parts.inbox
    row = await world.db.run(partial(inbox._make_room, tenant_id=caller.tenant_id, size=10))
    half = world.folder / "outputs" / f"{row.path}#1"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    (world.folder / "outputs" / row.path).write_bytes(b"whole")
    early = await prune(world.db, world.parts.storage)
    await overdue(world, str(row.id))

    assert (early, await prune(world.db, world.parts.storage)) == (0, 1)
    assert (await files(world), in_storage(world)) == ([], [])


async def test_an_order_puts_off_the_end_of_its_files(world):
    file = await upload(world)
    await overdue(world, file["id"])

    await order(world, file["url"])

    assert (await world.api.get(f"/v1/files/{file['id']}")).json()["expires_at"] >= file["expires_at"]


async def test_an_ended_job_needs_no_file_any_more(world):
    file = await upload(world)
    job = await order(world, file["url"])
    await world.dispatch()
    await world.at_fal(60)
    await world.ended(job["id"])

    async with world.db.session() as session:
        assert (await session.scalars(select(FileUse))).all() == []
        (attempt,) = await session.scalars(select(Attempt))
    assert list(attempt.sent_urls) == [file["url"]]


async def test_what_is_discarded_while_a_commit_that_shows_it_is_under_way_stays(world):
    answer = await world.api.post("/v1/files", content=samples.PNG)
    (file,) = await files(world)
    inbox = world.parts.inbox
    async with world.db.session() as session:
        await session.execute(text("UPDATE files SET stored_at = NULL"))

    async with world.db.session() as session:
        await session.execute(text("UPDATE files SET stored_at = now()"))
        # As by who got no answer to that commit, and takes it for undone.
        discarding = asyncio.create_task(inbox.discard(file.tenant_id, file.id, file.path))
        await done_or_blocked(world.db, discarding)
    await discarding

    assert await world.parts.storage.size(file.path) == len(samples.PNG)
    assert (await world.api.get(answer.headers["location"])).status_code == 200
