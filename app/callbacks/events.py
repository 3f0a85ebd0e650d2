"""What can be told (pure)."""

from enum import StrEnum
from typing import Final


class EventType(StrEnum):
    """What an endpoint can ask to be told."""

    SUBMITTED = "job.submitted"
    IN_PROGRESS = "job.in_progress"
    SUCCEEDED = "job.succeeded"
    FAILED = "job.failed"
    CANCELED = "job.canceled"
    EXPIRED = "job.expired"
    SAFE = "job.safe"


ENDINGS: Final = (EventType.SUCCEEDED, EventType.FAILED, EventType.CANCELED, EventType.EXPIRED)
"""What is told unless something else is asked for."""
TEST: Final = "endpoint.test"
"""What an endpoint is sent to be tried; nobody can ask for it otherwise."""


def body_of(kind: str, at: str, data: str) -> str:
    """The body of a callback: *at* is a time in RFC 3339, *data* a JSON object, kept to the letter."""
    return f'{{"type":"{kind}","timestamp":"{at}","data":{data}}}'
