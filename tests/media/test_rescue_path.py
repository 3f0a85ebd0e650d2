"""From a finished job to a safe file: rescuer, storage and job against the simulator."""

import asyncio
import hashlib
from decimal import Decimal

from tests import factories as make


async def succeeded(world, prompt="a mecha lands", **body):
    """A job that fal has finished."""
    job = await world.order(prompt, **body)
    await world.dispatch()
    await world.at_fal(60)
    return await world.ended(job["id"])


async def row_of(world, job):
    (row,) = await make.files_of(world.db, await make.key_of_id(world.db, job["id"]))
    return row


async def test_a_result_is_kept_measured_and_said_to_be_safe(world):
    done = await succeeded(world)
    assert (done["safe_at"], done["safe_error"], done["cost"]["measured_seconds"]) == (None, None, None)

    assert await world.rescue() == 1
    job = await world.job(done["id"])

    original = (await world.fal.get(done["output"]["video"]["url"])).content
    row = await row_of(world, job)
    assert job["safe_at"] is not None
    assert Decimal(job["cost"]["measured_seconds"]) == row.measured_seconds == Decimal(5)
    assert (row.size, row.sha256) == (len(original), hashlib.sha256(original).digest())
    assert await world.rescuer.storage.read(row.path, 0, row.size) == original


async def test_what_is_safe_is_not_copied_again(world):
    await succeeded(world)
    await world.rescue()
    await make.let_time_pass(world.db)

    assert await world.rescue() == 0


async def test_a_file_that_fal_no_longer_has_is_given_up_and_the_job_says_so(world):
    done = await succeeded(world, "[[sim: file_s=0]] a mecha")
    for _ in range(5):
        assert (await world.job(done["id"]))["safe_error"] is None
        assert await world.rescue() == 1
        await make.let_time_pass(world.db)

    job = await world.job(done["id"])

    assert await world.rescue() == 0
    assert (job["status"], job["safe_at"], job["safe_error"]["code"]) == ("succeeded", None, "gone")
    assert job["cost"]["charged"] == "2.10"


async def test_two_workers_copy_a_file_once(world):
    done = await succeeded(world)

    assert sum(await asyncio.gather(*(world.rescue() for _ in range(4)))) == 1
    assert (await world.job(done["id"]))["safe_at"] is not None


async def test_a_worker_that_lost_its_lease_spoils_nothing(world):
    done = await succeeded(world)
    (slow,) = await world.rescuer.take(1)
    await make.let_time_pass(world.db)
    await world.rescue()
    before = await row_of(world, done)

    await slow
    after = await row_of(world, done)

    assert (after.path, after.safe_at) == (before.path, before.safe_at)
    assert await world.rescuer.storage.size(after.path) == after.size
    folder, _, _ = before.path.rpartition("/")
    assert [file.name for file in (world.folder / "outputs" / folder).iterdir()] == [before.path.rpartition("/")[2]]
