"""
How many requests a minute: counted in this process, in constant time, for so many callers and no more.

The generic cell rate algorithm: all that is kept of a caller is the moment at which its allowance will be whole
again. A minute's worth may come at once, and comes back evenly.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final, NamedTuple

MINUTE_S: Final = 60.0
MOST: Final = 20_000


class Allowance(NamedTuple):
    """What is left to a caller, in requests, and for how many seconds it must wait if that is nothing."""

    granted: bool
    limit: int
    left: int
    whole_in_s: int
    wait_s: int

    def headers(self) -> dict[str, str]:
        """As the IETF's draft `ratelimit-headers` tells it."""
        return {
            "RateLimit-Policy": f'"requests";q={self.limit};w=60',
            "RateLimit": f'"requests";r={self.left};t={self.whole_in_s}',
        }


class Rates:
    """The allowances of all callers of one kind."""

    def __init__(self, *, most: int = MOST, now: Callable[[], float] = time.monotonic) -> None:
        self._whole_at: OrderedDict[Hashable, float] = OrderedDict()
        self._most = most
        self._now = now

    def take(self, who: Hashable, per_minute: int) -> Allowance:
        """One more request of *who*, if *per_minute* grants it."""
        now, each_s = self._now(), MINUTE_S / per_minute
        ahead_s = max(self._whole_at.get(who, 0.0) - now, 0.0)
        # A hair's breadth for the rounding of floats: the last request of a whole minute's worth is granted.
        granted = ahead_s + each_s <= MINUTE_S + 1e-6
        wait_s = 0.0
        if granted:
            ahead_s += each_s
            self._whole_at[who] = now + ahead_s
            self._whole_at.move_to_end(who)
            if len(self._whole_at) > self._most:
                self._whole_at.popitem(last=False)
        else:
            wait_s = ahead_s + each_s - MINUTE_S
        left = int((MINUTE_S - ahead_s) / each_s + 1e-6)
        return Allowance(granted, per_minute, max(left, 0), math.ceil(ahead_s), math.ceil(wait_s))
