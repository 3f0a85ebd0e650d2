"""
Rows: File, FileUse.

A file's row comes before its bytes and goes after them, so whatever a crash leaves in storage has a row that says
where. Until `stored_at` is set, and once it is taken away again, nobody sees the file.
"""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, new_id


class File(Base):
    """One file that a caller handed in; until it is stored, `size` is the most it may have."""

    __tablename__ = "files"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str | None]
    end_user: Mapped[str | None]
    """Whose it is, of those whom the tenant serves; a browser token reaches its own end user's files only."""
    path: Mapped[str]
    size: Mapped[int]
    content_type: Mapped[str | None]
    sha256: Mapped[bytes | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    stored_at: Mapped[datetime | None]
    prune_at: Mapped[datetime]
    """From when on it may go, unless a job uses it."""
    fal_url: Mapped[str | None]
    fal_url_until: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("size > 0", name="size_positive"),
        CheckConstraint(
            "stored_at IS NULL OR (content_type IS NOT NULL AND sha256 IS NOT NULL AND octet_length(sha256) = 32)",
            name="stored_has_content",
        ),
        CheckConstraint("(fal_url IS NULL) = (fal_url_until IS NULL)", name="fal_url_has_end"),
        Index("ix_files_prune_at", "prune_at"),
    )


class FileUse(Base):
    """An unfinished job needs this file; its row goes when the job ends."""

    __tablename__ = "file_uses"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    file_id: Mapped[UUID] = mapped_column(primary_key=True)
    job_id: Mapped[UUID] = mapped_column(primary_key=True)

    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "file_id"], ["files.tenant_id", "files.id"]),
        ForeignKeyConstraint(["tenant_id", "job_id"], ["jobs.tenant_id", "jobs.id"]),
        Index("ix_file_uses_job", "tenant_id", "job_id"),
    )
