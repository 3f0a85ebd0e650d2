"""fal's clock."""

import asyncio

import pytest

from app.simulator.clock import Clock, iso


async def test_things_due_happen_in_the_order_of_their_times():
    clock, done = Clock(), []
    clock.set(stopped=True)
    for wait_s in (3, 1, 2):
        clock.after(wait_s, lambda wait_s=wait_s: done.append(wait_s))  # type: ignore[misc]

    clock.set(advance_s=2.5)

    assert done == [1, 2]


async def test_stopped_clock_stands_and_still_does_what_is_due_at_once():
    clock, done = Clock(), asyncio.Event()
    clock.set(stopped=True)
    before = clock.now()

    clock.after(0, done.set)
    await asyncio.wait_for(done.wait(), 1)

    assert clock.now() == before


async def test_running_clock_wakes_by_itself_and_for_the_earliest():
    clock, done = Clock(), asyncio.Event()

    clock.after(3600, lambda: None)
    clock.after(0.01, done.set)
    await asyncio.wait_for(done.wait(), 1)
    clock.close()


async def test_failing_act_does_not_stop_the_clock():
    def fail() -> None:
        raise ZeroDivisionError

    clock, done = Clock(), asyncio.Event()
    clock.set(stopped=True)
    clock.after(1, fail)
    clock.after(1, done.set)

    with pytest.raises(ZeroDivisionError):
        clock.set(advance_s=1)

    await asyncio.wait_for(done.wait(), 1)


def test_times_are_written_with_their_zone():
    assert iso(1_760_000_000) == "2025-10-09T08:53:20.000000+00:00"
