"""What callers see of a file: FileView, FilePage."""

from datetime import UTC, datetime
from typing import Any, Final, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.files import addresses
from app.files.tables import File

FILE_EXAMPLE: Final[dict[str, Any]] = {
    "id": "0197a2b8-6c4e-7d31-9f00-3a5f0c1d2e4b",
    "url": "callsheet://files/0197a2b8-6c4e-7d31-9f00-3a5f0c1d2e4b",
    "name": "first-frame.png",
    "end_user": "user-42",
    "content_type": "image/png",
    "size": 482133,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "created_at": "2026-11-22T14:30:00Z",
    "expires_at": "2026-12-22T14:30:00Z",
}


class FileView(BaseModel):
    """A file to be used in inputs."""

    model_config = ConfigDict(json_schema_extra={"examples": [FILE_EXAMPLE]})

    id: UUID
    url: str = Field(description="Write this where an input takes an address, as in `image_url`; only you can use it")
    name: str | None = Field(description="What you called it, made safe")
    end_user: str | None = Field(description="Whose it is; browser tokens reach their own end user's files only")
    content_type: str = Field(description="Told from its bytes")
    size: int = Field(description="In bytes")
    sha256: str = Field(description="Of its bytes, in hex")
    created_at: datetime
    expires_at: datetime = Field(
        description="Deleted some time after this, unless an unfinished job uses it; each order that names it puts"
        " this off"
    )

    @classmethod
    def of(cls, file: File) -> Self:
        """*file* as its tenant sees it."""
        assert file.content_type is not None, "only a stored file is shown"  # noqa: S101
        assert file.sha256 is not None, "only a stored file is shown"  # noqa: S101
        return cls(
            id=file.id,
            url=addresses.url_of(file.id),
            name=file.name,
            end_user=file.end_user,
            content_type=file.content_type,
            size=file.size,
            sha256=file.sha256.hex(),
            created_at=file.created_at.astimezone(UTC),
            expires_at=file.prune_at.astimezone(UTC),
        )


class FilePage(BaseModel):
    """A page of files, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"data": [FILE_EXAMPLE], "next_cursor": None}]})

    data: list[FileView]
    next_cursor: str | None = Field(description="Pass as `cursor` for the next page; null on the last")
