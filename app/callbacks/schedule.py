"""When a callback that failed is tried again (pure)."""

import random
from typing import Final

PAUSES_S: Final = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0, 28_800.0, 28_800.0)
"""Pauses between the tries, about a day in all."""
JITTER: Final = 0.1
LONGEST_S: Final = 28_800.0
"""The longest that a receiver's Retry-After can put a try off."""


def retry_s(tries: int, *, retry_after_s: float | None = None) -> float | None:
    """
    Seconds until the next try, after *tries* of them failed; None if it is to be given up.

    A receiver's own *retry_after_s* can lengthen the pause, up to eight hours, never shorten it.
    """
    if tries > len(PAUSES_S):
        return None
    # Spread, so that a receiver that comes back isn't met by everything at once.
    pause = PAUSES_S[max(tries, 1) - 1] * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
    return max(pause, min(retry_after_s or 0.0, LONGEST_S))
