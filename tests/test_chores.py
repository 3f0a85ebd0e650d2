"""Chores: each is done by one worker when it is due, and comes due again whatever became of that worker."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from app import clock
from app.chores import Chore, Chores, Duty
from tests.world import run_once


class Done:
    """A duty that notes its runs, and fails while told to."""

    def __init__(self) -> None:
        self.before: list[object] = []
        self.failing = False

    async def __call__(self, before):
        self.before.append(before)
        if self.failing:
            raise RuntimeError
        return {"runs": len(self.before)}


@pytest.fixture
def done() -> Done:
    return Done()


def worker(db, do, *, owner="me", every_s=60.0, name="sweep"):
    return Chores(db, (Duty(name, every_s, do),), owner=owner, lease_s=90.0)


async def row(db, name="sweep"):
    async with db.session() as session:
        return (await session.scalars(select(Chore).where(Chore.name == name))).one()


async def come_due(db):
    async with db.session() as session:
        await session.execute(update(Chore).values(due_at=func.now()))


async def take(worker):
    """Take what is due, and die over it."""
    for piece in await worker.take(1):
        piece.close()


def left_s(chore):
    return (chore.due_at - clock.now()).total_seconds()


async def test_of_many_workers_one_does_it_and_not_before_it_is_due_again(db, done):
    workers = [worker(db, done, owner=f"w{n}") for n in range(8)]

    counts = await asyncio.gather(*(run_once(each) for each in workers))
    again = await asyncio.gather(*(run_once(each) for each in workers))

    assert (sum(counts), sum(again), len(done.before)) == (1, 0, 1)
    now = await row(db)
    assert (now.result, now.tries, now.lease_owner) == ({"runs": 1}, 0, None)
    assert now.due_at - now.done_at == timedelta(seconds=60)


async def test_a_run_is_given_what_the_one_before_left(db, done):
    mine = worker(db, done)
    await run_once(mine)
    await come_due(db)

    await run_once(mine)

    assert done.before == [None, {"runs": 1}]


async def test_what_a_dead_worker_took_comes_due_again_and_its_late_word_counts_no_more(db, done):
    dead, heir = worker(db, done, owner="dead"), worker(db, done, owner="heir")
    (cut_short,) = await dead.take(1)
    assert await run_once(heir) == 0
    await come_due(db)

    assert await run_once(heir) == 1
    after = await row(db)
    await cut_short

    now = await row(db)
    assert (now.due_at, now.done_at, now.result) == (after.due_at, after.done_at, {"runs": 1})


async def test_a_chore_that_fails_is_tried_again_soon_and_the_others_go_on(db, done):
    failing, other = Done(), done
    failing.failing = True
    both = Chores(db, (Duty("sweep", 3600, failing), Duty("other", 3600, other)), owner="me", lease_s=90)

    await run_once(both)

    sweep, fine = await row(db), await row(db, "other")
    assert (sweep.tries, sweep.done_at, sweep.result, sweep.lease_owner) == (1, None, None, None)
    assert left_s(sweep) < 2
    assert fine.done_at is not None
    failing.failing = False
    await come_due(db)
    await run_once(both)
    assert ((await row(db)).tries, (await row(db)).result) == (0, {"runs": 2})


async def test_a_chore_that_shall_be_done_more_often_comes_due_accordingly(db, done):
    await run_once(worker(db, done, every_s=86_400))

    await take(worker(db, done, every_s=120))

    assert 100 < left_s(await row(db)) <= 120


async def test_another_process_does_not_shorten_a_lease_or_put_a_chore_off(db, done):
    await take(worker(db, done, every_s=15))
    leased = await row(db)

    await take(worker(db, done, every_s=15, owner="you"))
    assert (await row(db)).due_at == leased.due_at

    async with db.session() as session:
        await session.execute(update(Chore).values(due_at=func.now() + timedelta(seconds=600)))
    soon = await row(db)
    await take(worker(db, done, every_s=3600, owner="you"))
    assert (await row(db)).due_at == soon.due_at


async def test_chores_of_another_version_are_left_to_it(db, done):
    async with db.session() as session:
        session.add(Chore(name="unknown here", due_at=func.now()))

    assert await run_once(worker(db, done)) == 1
    assert (await row(db, "unknown here")).lease_token == 0
