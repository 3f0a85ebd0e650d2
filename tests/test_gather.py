"""Sets of what arrives together: nobody waits, nobody is answered early, one bad member fails alone."""

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy.exc import DBAPIError, OperationalError

from app.errors import Unavailable
from app.gather import Gatherer


class Writer:
    """Writes sets when let; keeps what it was given."""

    def __init__(self, *, let: bool = True) -> None:
        self.sets: list[list[int]] = []
        self.go = asyncio.Event()
        self.troubles: list[Exception] = []
        if let:
            self.go.set()

    async def __call__(self, members: Sequence[int]) -> list[str]:
        self.sets.append(list(members))
        await self.go.wait()
        if self.troubles:
            raise self.troubles.pop(0)
        if -1 in members:
            raise ValueError("bad member")
        return [f"done {member}" for member in members]


class Refusal(Exception):
    sqlstate = "40P01"


async def under_way(gather: Gatherer[int, str], *members: int) -> list["asyncio.Task[str]"]:
    tasks = [asyncio.create_task(gather(member)) for member in members]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_a_lone_member_is_written_at_once():
    write = Writer()

    assert await Gatherer(write)(1) == "done 1"
    assert write.sets == [[1]]


async def test_what_arrives_during_a_write_is_the_next_set():
    write = Writer(let=False)
    gather = Gatherer(write, writers=1)
    first = await under_way(gather, 1)
    rest = await under_way(gather, 2, 3, 4)
    assert write.sets == [[1]]

    write.go.set()

    assert await asyncio.gather(*first, *rest) == ["done 1", "done 2", "done 3", "done 4"]
    assert write.sets == [[1], [2, 3, 4]]


async def test_a_second_set_is_written_beside_the_first_once_as_many_wait_as_fill_one(monkeypatch):
    monkeypatch.setattr("app.gather.LONG_S", 60)
    write = Writer(let=False)
    gather = Gatherer(write, most=3)
    tasks = await under_way(gather, 1) + await under_way(gather, 2, 3)
    assert write.sets == [[1]]

    tasks += await under_way(gather, 4, 5)

    assert write.sets == [[1], [2, 3, 4]]
    write.go.set()
    await asyncio.gather(*tasks)
    assert write.sets == [[1], [2, 3, 4], [5]]


async def test_of_two_writers_one_goes_on_when_few_wait(monkeypatch):
    monkeypatch.setattr("app.gather.LONG_S", 60)
    write = Writer(let=False)
    gather = Gatherer(write, most=3)
    tasks = await under_way(gather, 1) + await under_way(gather, 2, 3, 4, 5, 6)
    assert write.sets == [[1], [2, 3, 4]]

    write.go.set()
    await asyncio.gather(*tasks)
    assert write.sets == [[1], [2, 3, 4], [5, 6]]
    write.go.clear()
    write.sets.clear()

    tasks = await under_way(gather, 7) + await under_way(gather, 8)

    assert write.sets == [[7]]
    write.go.set()
    await asyncio.gather(*tasks)


async def test_a_burst_is_one_set():
    write = Writer()
    gather = Gatherer(write, most=3)

    await asyncio.gather(*(gather(member) for member in range(4)))

    assert write.sets == [[0, 1, 2], [3]]


async def test_a_writer_that_never_began_is_not_waited_for():
    write = Writer()
    gather = Gatherer(write)
    asker = asyncio.create_task(gather(1))
    await asyncio.sleep(0)
    (writer,) = gather._writers
    writer.cancel()
    asker.cancel()
    await asyncio.gather(writer, asker, return_exceptions=True)

    assert await gather(2) == "done 2"


async def test_nobody_waits_for_a_set_that_takes_long(monkeypatch):
    monkeypatch.setattr("app.gather.LONG_S", 0.01)
    write = Writer(let=False)
    gather = Gatherer(write)
    tasks = await under_way(gather, 1) + await under_way(gather, 2, 3)

    async with asyncio.timeout(30):
        while len(write.sets) < 2:
            await asyncio.sleep(0.001)

    assert write.sets == [[1], [2, 3]]
    write.go.set()
    assert await asyncio.gather(*tasks) == ["done 1", "done 2", "done 3"]
    assert await gather(4) == "done 4"


async def test_as_many_sets_are_written_at_a_time_as_there_are_writers(monkeypatch):
    monkeypatch.setattr("app.gather.LONG_S", 0.0)
    write = Writer(let=False)
    gather = Gatherer(write)
    tasks = []
    for member in range(6):
        tasks += await under_way(gather, member)
        await asyncio.sleep(0.005)

    assert len(write.sets) == 2
    write.go.set()
    assert await asyncio.gather(*tasks) == [f"done {member}" for member in range(6)]


async def test_nobody_is_answered_before_their_set_is_written():
    write = Writer(let=False)
    tasks = await under_way(Gatherer(write), 1, 2)

    assert not any(task.done() for task in tasks)
    write.go.set()
    await asyncio.gather(*tasks)


async def test_sets_are_bounded():
    write = Writer(let=False)
    gather = Gatherer(write, writers=1, most=2)
    tasks = await under_way(gather, 0, 1, 2, 3, 4)
    write.go.set()
    await asyncio.gather(*tasks)

    assert max(len(together) for together in write.sets) == 2


async def test_one_bad_member_fails_alone():
    write = Writer(let=False)
    gather = Gatherer(write, writers=1)
    tasks = await under_way(gather, 0) + await under_way(gather, 1, -1, 2)
    write.go.set()

    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert [answers[0], answers[1], answers[3]] == ["done 0", "done 1", "done 2"]
    assert isinstance(answers[2], ValueError)


async def test_a_set_whose_fate_is_unknown_is_not_written_again():
    write = Writer(let=False)
    gather = Gatherer(write, writers=1)
    tasks = await under_way(gather, 0) + await under_way(gather, 1, 2)
    write.troubles = [OperationalError("INSERT", {}, Exception("gone")), OperationalError("INSERT", {}, Exception())]
    write.go.set()

    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert all(isinstance(answer, OperationalError) for answer in answers)
    assert write.sets == [[0], [1, 2]]


async def test_a_deadlock_is_written_again():
    write = Writer()
    write.troubles = [DBAPIError("INSERT", {}, Refusal())]

    assert await Gatherer(write)(1) == "done 1"
    assert write.sets == [[1], [1]]


async def test_who_hung_up_in_time_is_not_written_and_harms_nobody():
    write = Writer(let=False)
    gather = Gatherer(write, writers=1)
    first = await under_way(gather, 1)
    gone, stays = await under_way(gather, 2, 3)
    gone.cancel()
    first[0].cancel()
    await asyncio.sleep(0)
    write.go.set()

    assert await stays == "done 3"
    assert write.sets == [[1], [3]]


async def test_a_crowd_is_turned_away():
    write = Writer(let=False)
    gather = Gatherer(write, writers=1, crowd=2)
    tasks = await under_way(gather, 0) + await under_way(gather, 1, 2)

    with pytest.raises(Unavailable):
        await gather(3)
    write.go.set()
    await asyncio.gather(*tasks)
