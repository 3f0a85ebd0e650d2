"""The header Retry-After: when somebody whom we called wants to be called again."""

from datetime import UTC
from email.utils import parsedate_to_datetime

from app import clock


def retry_after_s(text: str) -> float | None:
    """The seconds from now that *text* asks for, written as such or as a date; None if it makes no sense."""
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        at = parsedate_to_datetime(text)
        return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - clock.now()).total_seconds())
    except (ValueError, OverflowError):
        return None
