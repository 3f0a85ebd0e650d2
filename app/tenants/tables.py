"""Rows: Tenant, ApiKey."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, CheckConstraint, ForeignKey, Index, Text, UniqueConstraint, func, text
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

    __table_args__ = (
        UniqueConstraint("tenant_id", "digest"),
        CheckConstraint("octet_length(digest) = 32", name="digest_is_sha256"),
        # A caller brings only the key, so this one look-up knows no tenant yet.
        Index("ix_api_keys_digest", "digest"),
    )
