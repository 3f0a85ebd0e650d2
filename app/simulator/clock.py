"""fal's clock, which may be set, stopped and moved on; and what is due at which time of it."""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime


class Clock:
    """
    The time the simulator lives by, in Unix seconds.

    Waiting, running, retries of webhooks and the expiry of results follow it, so a test moves it on instead
    of sleeping. Webhook signatures don't: their reader compares them with the true time.
    """

    def __init__(self) -> None:
        self.offset_s = 0.0
        self._stopped_at: float | None = None
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._alarm: asyncio.TimerHandle | None = None

    def now(self) -> float:
        return self._stopped_at if self._stopped_at is not None else time.time() + self.offset_s

    @property
    def stopped(self) -> bool:
        return self._stopped_at is not None

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Call *act* once the clock has reached *when*; at the earliest in the next turn of the loop."""
        heapq.heappush(self._due, (when, next(self._order), act))
        if self._due[0][0] == when:
            self._set_alarm()

    def after(self, wait_s: float, act: Callable[[], None]) -> None:
        self.at(self.now() + wait_s, act)

    def set(self, *, offset_s: float | None = None, advance_s: float = 0.0, stopped: bool | None = None) -> None:
        """Put the clock *advance_s* ahead, or at *offset_s* from the true time, and run what that makes due."""
        now = time.time() + offset_s if offset_s is not None else self.now()
        stay = self.stopped if stopped is None else stopped
        self.offset_s = now + advance_s - time.time()
        self._stopped_at = now + advance_s if stay else None
        self.run_due()

    def run_due(self) -> None:
        """Do everything whose time has come, in the order of those times."""
        try:
            while self._due and self._due[0][0] <= self.now():
                heapq.heappop(self._due)[2]()
        finally:
            self._set_alarm()

    def close(self) -> None:
        self._due.clear()
        if self._alarm is not None:
            self._alarm.cancel()

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if not self._due:
            return
        wait_s = self._due[0][0] - self.now()
        # A stopped clock still owes what is due already: "after 0 seconds" means now.
        if wait_s <= 0 or not self.stopped:
            self._alarm = asyncio.get_running_loop().call_later(min(max(wait_s, 0.0), 3600.0), self.run_due)


def iso(when: float) -> str:
    """*when* as fal writes it, e.g. 2026-11-22T10:00:00.000000+00:00."""
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="microseconds")
