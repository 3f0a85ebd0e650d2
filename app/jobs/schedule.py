"""When to ask fal about a job (pure)."""

from typing import Final

UNKNOWN_S: Final = 120.0
"""How long a video takes when this deployment has no history of its model: Kling takes one to five minutes."""
LONGEST_S: Final = 300.0
"""The longest pause between two questions; a result may vanish six minutes after it is ready."""
GROWTH: Final = 1.25


def ask_s(asked: int, *, progress_s: float, left_s: float | None = None) -> float:
    """
    Seconds until a job is asked about, after it was asked about *asked* times.

    Pauses grow from *progress_s* to five minutes, but none runs far past the moment the job is
    expected to be done, *left_s* seconds from now: from then on a webhook is overdue.
    """
    pause = min(LONGEST_S, progress_s * GROWTH ** min(asked, 100))
    if left_s is not None and left_s > 0:
        pause = min(pause, left_s + progress_s)
    return pause
