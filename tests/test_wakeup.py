"""What tells other processes that there is something to look at."""

import asyncio

from app import wakeup, worker
from app.wakeup import DISPATCHER, RESCUER, ROOM, SENDER, Announcer


async def test_who_waits_in_the_same_process_is_woken_without_a_round_trip():
    here = asyncio.Event()

    # Nothing listens there.
    async with Announcer("postgresql://127.0.0.1:9/none", here=[here]) as announcer:
        announcer.announce()

        assert here.is_set()


async def test_who_is_named_hears_of_it_and_everybody_if_nobody_is(database_url):
    heard: asyncio.Queue[list[str]] = asyncio.Queue()
    async with Announcer(database_url) as announcer:
        listening = asyncio.create_task(wakeup.listen(database_url, lambda named: heard.put_nowait([*named])))
        listens = await heard.get()

        announcer.announce(SENDER, DISPATCHER)
        some = await heard.get()
        announcer.announce(DISPATCHER)
        announcer.announce()
        everybody = await heard.get()
        listening.cancel()

    assert (listens, some, everybody) == ([], [DISPATCHER, SENDER], [])


async def test_a_worker_wakes_the_loops_that_are_named_or_all_of_them():
    def woken(*named: str) -> set[str]:
        wake = {name: asyncio.Event() for name in (*worker.ANNOUNCED, "chores")}
        worker._wake(wake, named)
        return {name for name, event in wake.items() if event.is_set()}

    assert woken(DISPATCHER) == {DISPATCHER}
    assert woken(SENDER, "of a version to come") == {SENDER}
    assert woken() == {*worker.ANNOUNCED}


async def test_room_at_fal_wakes_the_dispatcher_in_a_moment():
    wake = {DISPATCHER: asyncio.Event()}

    worker._wake(wake, [ROOM])

    assert not wake[DISPATCHER].is_set()
    async with asyncio.timeout(5):
        await wake[DISPATCHER].wait()


async def test_an_order_is_announced_to_the_dispatcher_alone_and_its_end_to_all_that_have_work_from_it(
    world, monkeypatch
):
    named: asyncio.Queue[set[str]] = asyncio.Queue()
    monkeypatch.setattr(world.app.state.announcer, "announce", lambda *whom: named.put_nowait({*whom}))

    job = await world.order()
    await world.dispatch()
    await world.at_fal(60)
    await world.ended(job["id"])

    assert [await named.get(), await named.get()] == [{DISPATCHER}, {RESCUER, ROOM, SENDER}]
    assert named.empty()
