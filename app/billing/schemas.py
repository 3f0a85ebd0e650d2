"""What callers send and see of money."""

from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app import money
from app.billing.prices import Quote
from app.billing.tables import Account, Kind, LedgerEntry, Side

EXAMPLE_ORDER: dict[str, Any] = {
    "model": "fal-ai/kling-video/o3/4k/text-to-video",
    "input": {"prompt": "A lighthouse in a storm, slow aerial shot", "duration": "5"},
}


EXAMPLE_QUOTE: dict[str, Any] = {
    "model": EXAMPLE_ORDER["model"],
    "currency": "USD",
    "seconds": "5",
    "price_per_second": "0.42",
    "amount": "2.10",
    "is_maximum": False,
    "verified": True,
    "source": "fal.ai, model page, 2026-11-22",
    "note": None,
}
EXAMPLE_BALANCE: dict[str, Any] = {
    "currency": "USD",
    "available": "97.90",
    "held": "0.00",
    "spent": "2.10",
    "credit_limit": "0.00",
}
EXAMPLE_ENTRY: dict[str, Any] = {
    "id": "0197a2b8-7a10-7c55-8a3e-2f6e2b7d9c01",
    "kind": "charge",
    "from_side": "held",
    "to_side": "spent",
    "amount": "2.10",
    "currency": "USD",
    "job_id": "0197a2b8-6c4e-7d31-9f00-3a5f0c1d2e4b",
    "note": None,
    "created_at": "2026-11-22T14:31:40Z",
}


class QuoteOrder(BaseModel):
    """An order to be priced, not made."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [EXAMPLE_ORDER]})

    model: str = Field(min_length=1, max_length=200, description="Id of a model of `GET /v1/models`")
    input: dict[str, Any] = Field(description="The model's own input")


class QuoteView(BaseModel):
    """What an order would cost."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_QUOTE]})

    model: str = Field(examples=[EXAMPLE_ORDER["model"]])
    currency: str = Field(examples=["USD"])
    seconds: str = Field(description="Seconds that would be paid for", examples=["5"])
    price_per_second: str = Field(examples=["0.42"])
    amount: str = Field(description="What would be held, and charged at most", examples=["2.10"])
    is_maximum: bool = Field(
        description="True where the price depends on a file's length: the charge follows the delivered video"
    )
    verified: bool = Field(description="False where the price isn't from fal's own page or price list")
    source: str = Field(description="Where the price comes from")
    note: str | None = Field(description="What to know about it")

    @classmethod
    def of(cls, model: str, quote: Quote) -> Self:
        """*quote* as callers see it."""
        return cls(
            model=model,
            currency="USD",
            seconds=format(quote.seconds.normalize(), "f"),
            price_per_second=money.to_text(quote.price.per_second),
            amount=money.to_text(quote.amount),
            is_maximum=quote.is_maximum,
            verified=quote.verified,
            source=quote.source,
            note=quote.note,
        )


class BalanceView(BaseModel):
    """A tenant's balance."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_BALANCE]})

    currency: str = Field(examples=["USD"])
    available: str = Field(description="Free to spend; negative when on credit", examples=["97.90"])
    held: str = Field(description="Set aside for unfinished jobs", examples=["0.00"])
    spent: str = Field(description="Charged so far", examples=["2.10"])
    credit_limit: str | None = Field(description="How far `available` may go below zero; null: without limit")

    @classmethod
    def of(cls, account: Account) -> Self:
        """*account* as its tenant sees it."""
        return cls(
            currency=account.currency,
            available=money.to_text(account.available),
            held=money.to_text(account.held),
            spent=money.to_text(account.spent),
            credit_limit=None if account.credit_limit is None else money.to_text(account.credit_limit),
        )


class EntryView(BaseModel):
    """One movement of money."""

    id: UUID
    kind: Kind
    from_side: Side
    to_side: Side
    amount: str = Field(examples=["2.10"])
    currency: str = Field(examples=["USD"])
    job_id: UUID | None
    note: str | None
    created_at: datetime

    @classmethod
    def of(cls, entry: LedgerEntry) -> Self:
        """*entry* as its tenant sees it."""
        return cls(
            id=entry.id,
            kind=Kind(entry.kind),
            from_side=Side(entry.from_side),
            to_side=Side(entry.to_side),
            amount=money.to_text(entry.amount),
            currency="USD",
            job_id=entry.job_id,
            note=entry.note,
            created_at=entry.created_at.astimezone(UTC),
        )


class LedgerPage(BaseModel):
    """A page of the ledger, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"data": [EXAMPLE_ENTRY], "next_cursor": None}]})

    data: list[EntryView]
    next_cursor: str | None = Field(description="Pass as `cursor` for the next page; null on the last")
