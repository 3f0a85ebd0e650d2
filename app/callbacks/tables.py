"""
Rows: Endpoint, Delivery, Attempt.

The constraints carry the promise: what isn't delivered is due or says why it was given up, and one event of a job is
told to one endpoint once.
"""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, new_id
from app.leases import Leased


class DeliveryStatus(StrEnum):
    """What became of something to be told."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


class Endpoint(Base):
    """
    Where a tenant wants to be called, what about, and what its callbacks are signed with.

    The one without a `url` stands for the `callback_url`s of the tenant's jobs: their secret, and their place in the
    sender. Secrets are kept as they are, for they must sign; who can read this table can sign, too.
    """

    __tablename__ = "callback_endpoints"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    url: Mapped[str | None]
    description: Mapped[str | None]
    events: Mapped[list[str]] = mapped_column(ARRAY(Text))
    secret: Mapped[bytes]
    old_secret: Mapped[bytes | None]
    old_secret_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    failing_since: Mapped[datetime | None]
    warned_at: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    disabled_why: Mapped[str | None]
    deleted_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("octet_length(secret) = 32", name="secret_is_long"),
        CheckConstraint("(old_secret IS NULL) = (old_secret_until IS NULL)", name="old_secret_ends"),
        CheckConstraint("(disabled_at IS NULL) = (disabled_why IS NULL)", name="disabled_has_reason"),
        CheckConstraint("url IS NOT NULL OR disabled_at IS NULL", name="of_jobs_stays"),
        CheckConstraint("deleted_at IS NULL OR disabled_at IS NOT NULL", name="deleted_is_disabled"),
        Index("uq_callback_endpoints_of_jobs", "tenant_id", unique=True, postgresql_where=text("url IS NULL")),
    )


class Delivery(Leased, Base):
    """
    One event to be told to one endpoint; `id` is its webhook-id.

    The body is written with the event and never again, so that it tells of its own moment and is the same at each try.
    """

    __tablename__ = "callback_deliveries"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    endpoint_id: Mapped[UUID]
    job_id: Mapped[UUID | None]
    sequence: Mapped[int | None]
    url: Mapped[str | None]
    type: Mapped[str]
    body: Mapped[str]
    status: Mapped[str] = mapped_column(default=DeliveryStatus.PENDING)
    dead_why: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    queued_at: Mapped[datetime] = mapped_column(server_default=func.now())
    delivered_at: Mapped[datetime | None]

    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "endpoint_id"], ["callback_endpoints.tenant_id", "callback_endpoints.id"]),
        ForeignKeyConstraint(["tenant_id", "job_id"], ["jobs.tenant_id", "jobs.id"]),
        UniqueConstraint("tenant_id", "job_id", "endpoint_id", "sequence"),
        CheckConstraint("status IN ('pending', 'delivered', 'dead')", name="status_known"),
        CheckConstraint("(status = 'pending') = (due_at IS NOT NULL)", name="pending_is_due"),
        CheckConstraint("(status = 'delivered') = (delivered_at IS NOT NULL)", name="delivered_has_time"),
        CheckConstraint("(status = 'dead') = (dead_why IS NOT NULL)", name="dead_has_reason"),
        CheckConstraint("(job_id IS NULL) = (sequence IS NULL)", name="job_has_sequence"),
        # What the sender looks for, endpoint by endpoint.
        Index(
            "ix_callback_deliveries_due",
            "tenant_id",
            "endpoint_id",
            "due_at",
            postgresql_where=text("due_at IS NOT NULL"),
        ),
        Index("ix_callback_deliveries_endpoint", "tenant_id", "endpoint_id", "id"),
        Index("ix_callback_deliveries_status", "tenant_id", "status", "id"),
        Index("ix_callback_deliveries_settled", "queued_at", postgresql_where=text("due_at IS NULL")),
        Index("ix_callback_deliveries_dead", "tenant_id", "endpoint_id", postgresql_where=text("status = 'dead'")),
    )


class Attempt(Base):
    """One try to deliver: what was answered, clipped, or what went wrong."""

    __tablename__ = "callback_attempts"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    delivery_id: Mapped[UUID]
    status_code: Mapped[int | None]
    error: Mapped[str | None]
    body: Mapped[str]
    duration_ms: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "delivery_id"],
            ["callback_deliveries.tenant_id", "callback_deliveries.id"],
            # Whoever prunes deliveries prunes their attempts.
            ondelete="CASCADE",
        ),
        CheckConstraint("error IS NOT NULL OR status_code BETWEEN 200 AND 299", name="failed_has_error"),
        CheckConstraint("octet_length(body) <= 6144", name="body_is_clipped"),
        Index("ix_callback_attempts_delivery", "tenant_id", "delivery_id", "id"),
    )
