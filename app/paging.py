"""Pages of a list: keyset cursors, stable under inserts, at the same cost on every page."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Annotated, Protocol, TypeVar
from uuid import UUID

from fastapi import Query

from app.errors import Fault, InvalidRequest

Limit = Annotated[int, Query(ge=1, le=100, description="Rows on a page")]
Cursor = Annotated[str | None, Query(max_length=100, description="`next_cursor` of the page before")]


class HasId(Protocol):
    """A row with an id that sorts by time."""

    @property
    def id(self) -> UUID: ...


Row = TypeVar("Row", bound=HasId)


def encode(last: UUID) -> str:
    """The cursor after *last*."""
    return urlsafe_b64encode(last.bytes).decode().rstrip("=")


def decode(cursor: str | None) -> UUID | None:
    """The id that *cursor* stands for. Raises InvalidRequest for anything else."""
    if cursor is None:
        return None
    try:
        return UUID(bytes=urlsafe_b64decode(cursor.encode("ascii") + b"=="))
    except ValueError:
        fault = Fault(pointer="cursor", code="malformed", detail="Use next_cursor of the page before, unchanged.")
        raise InvalidRequest(errors=[fault]) from None


def cut(rows: Sequence[Row], limit: int) -> tuple[Sequence[Row], str | None]:
    """The page out of *rows*, which were asked for with one more than *limit*, and the cursor after it."""
    shown = rows[:limit]
    return shown, encode(shown[-1].id) if len(rows) > limit else None
