"""Rows: Tenant, ApiKey, BrowserToken, AuditEntry."""

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Numeric,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, new_id


class Tenant(Base):
    """Someone whose jobs, money and keys are apart from everybody else's."""

    __tablename__ = "tenants"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    at_once: Mapped[int | None]
    """How many of its jobs may be at fal at once, 0 to hold them back; None = TENANT_AT_ONCE."""

    __table_args__ = (
        UniqueConstraint("name"),
        # A round of dispatch looks for the few tenants with a limit of their own.
        Index("ix_tenants_at_once", "id", postgresql_where=text("at_once IS NOT NULL")),
        CheckConstraint("name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'", name="name_is_plain"),
    )


class ApiKey(Base):
    """A key of a tenant: its hash, what it may do, and until when."""

    __tablename__ = "api_keys"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str]
    prefix: Mapped[str]
    digest: Mapped[bytes]
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    requests_per_minute: Mapped[int | None]
    replaced_by: Mapped[UUID | None]

    __table_args__ = (
        UniqueConstraint("tenant_id", "digest"),
        CheckConstraint("requests_per_minute > 0", name="requests_per_minute_positive"),
        CheckConstraint("octet_length(digest) = 32", name="digest_is_sha256"),
        # A caller brings only the key, so this one look-up knows no tenant yet.
        Index("ix_api_keys_digest", "digest"),
    )


class BrowserToken(Base):
    """A short-lived token of a key, narrowed to one end user; what was ordered with it is counted in *spent*."""

    __tablename__ = "browser_tokens"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    api_key_id: Mapped[UUID]
    digest: Mapped[bytes]
    end_user: Mapped[str]
    actions: Mapped[list[str]] = mapped_column(ARRAY(Text))
    models: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    max_spend: Mapped[Decimal | None] = mapped_column(Numeric(20, 10))
    spent: Mapped[Decimal] = mapped_column(Numeric(20, 10), default=0, server_default="0")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]

    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "api_key_id"], ["api_keys.tenant_id", "api_keys.id"]),
        UniqueConstraint("tenant_id", "digest"),
        CheckConstraint("octet_length(digest) = 32", name="digest_is_sha256"),
        CheckConstraint("spent >= 0 AND spent <= max_spend", name="spent_within_bound"),
        # A caller brings only the token, so this one look-up knows no tenant yet.
        Index("ix_browser_tokens_digest", "digest"),
        Index("ix_browser_tokens_expires_at", "expires_at"),
    )


class AuditEntry(Base):
    """
    Who changed what, and when; never changed itself.

    Not a tenant's row: an operator's doings may concern no tenant, and are read in one order.
    """

    __tablename__ = "audit_log"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    tenant_id: Mapped[UUID | None]
    actor: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    facts: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
