"""Rows: Incident."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.billing.tables import MONEY
from app.db import Base, new_id


class Incident(Base):
    """
    Some trouble that needs a person, from when it was first seen until it is gone, or dismissed.

    Not a tenant's row: it tells operators about all of them. The trouble lies between `since` and `until`, which
    are the times of its oldest and its newest fact; a dismissal covers everything up to that `until`.
    """

    __tablename__ = "incidents"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    kind: Mapped[str]
    subject: Mapped[str] = mapped_column(default="", server_default="")
    opened_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    closed_at: Mapped[datetime | None]
    since: Mapped[datetime]
    until: Mapped[datetime]
    jobs: Mapped[int]
    amount: Mapped[Decimal] = mapped_column(MONEY)
    detail: Mapped[dict[str, Any]]
    dismissed_at: Mapped[datetime | None]
    dismissed_by: Mapped[str | None]
    dismissed_why: Mapped[str | None]

    __table_args__ = (
        CheckConstraint("jobs >= 0 AND amount >= 0", name="not_negative"),
        CheckConstraint("since <= until", name="begins_before_it_ends"),
        CheckConstraint(
            "(dismissed_at IS NOT NULL) = (dismissed_by IS NOT NULL)"
            " AND (dismissed_at IS NOT NULL) = (dismissed_why IS NOT NULL)",
            name="dismissal_says_who_and_why",
        ),
        CheckConstraint("dismissed_at IS NULL OR closed_at IS NOT NULL", name="dismissed_is_closed"),
        # Open once, whoever watches.
        Index("uq_incidents_open", "kind", "subject", unique=True, postgresql_where=text("closed_at IS NULL")),
        Index("ix_incidents_closed", "kind", "subject", "closed_at", postgresql_where=text("closed_at IS NOT NULL")),
        Index("ix_incidents_dismissed", "kind", "until", postgresql_where=text("dismissed_at IS NOT NULL")),
        Index("ix_incidents_kind", "kind", "id"),
    )
