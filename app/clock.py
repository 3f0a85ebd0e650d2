"""The time, as rules and signatures need it; rows take theirs from Postgres, so that all processes agree."""

from datetime import UTC, datetime


def now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(UTC)
