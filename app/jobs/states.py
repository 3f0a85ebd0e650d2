"""The life of a job: which status may follow which (pure)."""

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Final


class JobStatus(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    SUBMITTING = "submitting"
    SUBMIT_UNKNOWN = "submit_unknown"
    SUBMITTED = "submitted"
    IN_PROGRESS = "in_progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"


class AttemptStatus(StrEnum):
    """What is known of one try to hand a job to fal."""

    SUBMITTING = "submitting"
    UNKNOWN = "unknown"
    SUBMITTED = "submitted"
    REFUSED = "refused"


class Priority(IntEnum):
    """A job's place among its tenant's own; sorts as it is served."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


ENDINGS: Final = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.EXPIRED})

# fal's verdict may overtake our own note that the job was submitted, and a webhook may still come for an
# attempt that looked refused, so fal's news is welcome in every unfinished status.
_AT_FAL: Final = ENDINGS | {JobStatus.SUBMITTED, JobStatus.IN_PROGRESS}

MOVES: Final[Mapping[JobStatus, frozenset[JobStatus]]] = {
    JobStatus.QUEUED: _AT_FAL | {JobStatus.SUBMITTING},
    JobStatus.SUBMITTING: _AT_FAL | {JobStatus.QUEUED, JobStatus.SUBMIT_UNKNOWN},
    JobStatus.SUBMIT_UNKNOWN: _AT_FAL | {JobStatus.QUEUED},
    JobStatus.SUBMITTED: ENDINGS | {JobStatus.IN_PROGRESS},
    # fal retries by itself: a running request may step back into its queue.
    JobStatus.IN_PROGRESS: ENDINGS | {JobStatus.SUBMITTED},
    **{ending: frozenset() for ending in ENDINGS},
}


def sources(target: JobStatus) -> set[JobStatus]:
    """The statuses a job may leave for *target*."""
    return {status for status, targets in MOVES.items() if target in targets}
