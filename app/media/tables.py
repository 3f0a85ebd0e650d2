"""
Rows: Output, LinkKey.

The constraints carry the promise: what is called safe has a place, a size and a hash in our own storage,
and what isn't safe is either due to be tried or says why it was given up.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, Numeric, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base
from app.leases import Leased


class Output(Leased, Base):
    """One file of a job's output: where fal has it, and, once safe, where we do."""

    __tablename__ = "outputs"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)

    source_url: Mapped[str]
    content_type: Mapped[str | None]
    vanishes_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    path: Mapped[str | None]
    size: Mapped[int | None]
    sha256: Mapped[bytes | None]
    measured_seconds: Mapped[Decimal | None] = mapped_column(Numeric(12, 3))
    safe_at: Mapped[datetime | None]
    error: Mapped[dict[str, Any] | None]
    given_up_at: Mapped[datetime | None]

    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "job_id"], ["jobs.tenant_id", "jobs.id"]),
        CheckConstraint("number > 0", name="number_positive"),
        CheckConstraint("(safe_at IS NOT NULL) = (path IS NOT NULL)", name="safe_has_path"),
        CheckConstraint(
            "safe_at IS NULL OR (size IS NOT NULL AND size > 0 AND sha256 IS NOT NULL AND octet_length(sha256) = 32)",
            name="safe_has_content",
        ),
        CheckConstraint("safe_at IS NULL OR (due_at IS NULL AND error IS NULL)", name="safe_is_not_due"),
        CheckConstraint("safe_at IS NOT NULL OR due_at IS NOT NULL OR error IS NOT NULL", name="given_up_has_error"),
        CheckConstraint("measured_seconds > 0", name="measured_not_zero"),
        Index("ix_outputs_due", "vanishes_at", "due_at", postgresql_where=text("due_at IS NOT NULL")),
        Index("ix_outputs_given_up", "given_up_at", postgresql_where=text("given_up_at IS NOT NULL")),
    )


class LinkKey(Base):
    """The key that signs links to kept files, made once where none is set; one row."""

    __tablename__ = "link_keys"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, default=1)
    key: Mapped[bytes]

    __table_args__ = (
        CheckConstraint("number = 1", name="only_one"),
        CheckConstraint("octet_length(key) >= 32", name="key_long_enough"),
    )
