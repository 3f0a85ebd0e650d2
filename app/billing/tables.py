"""
Rows: Account, LedgerEntry.

A tenant's account has three sides, `available`, `held` and `spent`; `outside` is everybody else.
One entry moves one amount from one side to another and is never changed. What the constraints
below refuse can't happen, whatever the code does:

- an entry without two different sides, or whose sides don't fit its kind;
- a second hold for a job, or a hold resolved twice;
- a charge above its hold, and a release that isn't exactly what is left of it.
"""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    Computed,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Numeric,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base, new_id

MONEY: Final = Numeric(20, 10)
JOB: Final = ("tenant_id", "job_id")
NAMED: Final = [f"ledger_entries.{column}" for column in (*JOB, "kind", "amount")]


class Kind(StrEnum):
    """Why an amount moved."""

    DEPOSIT = "deposit"
    HOLD = "hold"
    CHARGE = "charge"
    RELEASE = "release"
    ADJUST = "adjust"


class Side(StrEnum):
    """Where an amount can be."""

    OUTSIDE = "outside"
    AVAILABLE = "available"
    HELD = "held"
    SPENT = "spent"


class Account(Base):
    """A tenant's balances: the sum of its entries, side by side."""

    __tablename__ = "accounts"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"), primary_key=True)
    currency: Mapped[str] = mapped_column(default="USD", server_default="USD")
    available: Mapped[Decimal] = mapped_column(MONEY, default=0, server_default="0")
    held: Mapped[Decimal] = mapped_column(MONEY, default=0, server_default="0")
    spent: Mapped[Decimal] = mapped_column(MONEY, default=0, server_default="0")
    credit_limit: Mapped[Decimal | None] = mapped_column(MONEY)

    __table_args__ = (
        CheckConstraint("currency = 'USD'", name="currency"),
        CheckConstraint("held >= 0", name="held_not_negative"),
        CheckConstraint("spent >= 0", name="spent_not_negative"),
        CheckConstraint("credit_limit >= 0", name="credit_limit_not_negative"),
    )


class LedgerEntry(Base):
    """One amount, moved once, for one reason."""

    __tablename__ = "ledger_entries"

    tenant_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.tenant_id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    kind: Mapped[str]
    from_side: Mapped[str]
    to_side: Mapped[str]
    amount: Mapped[Decimal] = mapped_column(MONEY)
    job_id: Mapped[UUID | None]
    hold_amount: Mapped[Decimal | None] = mapped_column(MONEY)
    charge_amount: Mapped[Decimal | None] = mapped_column(MONEY)
    # With the amounts these name the job's own hold and charge, for the foreign keys below.
    hold_kind: Mapped[str | None] = mapped_column(
        Computed("CASE WHEN hold_amount IS NOT NULL THEN 'hold' END", persisted=True)
    )
    charge_kind: Mapped[str | None] = mapped_column(
        Computed("CASE WHEN charge_amount IS NOT NULL THEN 'charge' END", persisted=True)
    )
    note: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint("amount >= 0", name="amount_not_negative"),
        CheckConstraint(
            "(kind = 'deposit' AND from_side = 'outside' AND to_side = 'available')"
            " OR (kind = 'hold' AND from_side = 'available' AND to_side = 'held')"
            " OR (kind = 'charge' AND from_side = 'held' AND to_side = 'spent')"
            " OR (kind = 'release' AND from_side = 'held' AND to_side = 'available')"
            " OR (kind = 'adjust' AND from_side <> to_side"
            " AND from_side IN ('outside', 'available', 'spent') AND to_side IN ('outside', 'available', 'spent'))",
            name="kind_fits_sides",
        ),
        CheckConstraint("kind IN ('deposit', 'adjust') OR job_id IS NOT NULL", name="job_named"),
        CheckConstraint("(kind IN ('charge', 'release')) = (hold_amount IS NOT NULL)", name="resolution_names_hold"),
        CheckConstraint("charge_amount IS NULL OR kind = 'release'", name="only_release_follows_charge"),
        CheckConstraint("kind <> 'charge' OR amount <= hold_amount", name="charge_within_hold"),
        CheckConstraint(
            "kind <> 'release' OR amount = hold_amount - coalesce(charge_amount, 0)",
            name="release_is_what_is_left",
        ),
        # The amounts named above are those of the job's own hold and charge, because the keys include them.
        UniqueConstraint("tenant_id", "job_id", "kind", "amount"),
        ForeignKeyConstraint(["tenant_id", "job_id", "hold_kind", "hold_amount"], NAMED, name="fk_ledger_entries_hold"),
        ForeignKeyConstraint(
            ["tenant_id", "job_id", "charge_kind", "charge_amount"], NAMED, name="fk_ledger_entries_charge"
        ),
        Index("uq_ledger_entries_hold", *JOB, unique=True, postgresql_where=text("kind = 'hold'")),
        # A hold is resolved once: by a charge, or by a release of all of it.
        Index(
            "uq_ledger_entries_resolution",
            *JOB,
            unique=True,
            postgresql_where=text("kind IN ('charge', 'release') AND charge_amount IS NULL"),
        ),
        # Every job has a hold, and most have a charge; a page of what is rarer mustn't read through all of those.
        Index(
            "ix_ledger_entries_rare",
            "tenant_id",
            "id",
            postgresql_where=text("kind IN ('deposit', 'release', 'adjust')"),
        ),
        Index("uq_ledger_entries_rest", *JOB, unique=True, postgresql_where=text("charge_amount IS NOT NULL")),
    )
