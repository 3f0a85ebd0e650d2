"""What tells other processes that there is something to look at."""

import asyncio

from app.wakeup import Announcer


async def test_who_waits_in_the_same_process_is_woken_without_a_round_trip():
    here = asyncio.Event()

    # Nothing listens there.
    async with Announcer("postgresql://127.0.0.1:9/none", here=[here]) as announcer:
        announcer.announce()

        assert here.is_set()
