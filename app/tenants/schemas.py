"""What callers send and see of keys, browser tokens and the audit log."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app import clock, money
from app.tenants.keys import Action, Scope
from app.tenants.tables import ApiKey, AuditEntry, BrowserToken

Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Amount = Annotated[str, Field(pattern=r"^\d{1,9}(\.\d{1,6})?$", examples=["2.50"])]
TEN_YEARS_S: Final = 315_360_000

KEY_EXAMPLE: Final[dict[str, Any]] = {
    "id": "0197a2b8-6c4e-7d31-9f00-3a5f0c1d2e4b",
    "name": "backend",
    "prefix": "cs_CwTfQ0aB",
    "scopes": ["jobs:read", "jobs:write"],
    "state": "works",
    "requests_per_minute": 600,
    "created_at": "2026-11-22T14:30:00Z",
    "expires_at": None,
    "revoked_at": None,
    "last_used_at": "2026-11-22T14:31:00Z",
    "replaced_by": None,
}
TOKEN_EXAMPLE: Final[dict[str, Any]] = {
    "id": "0197a2b8-6c4e-7d31-9f00-3a5f0c1d2e4b",
    "key_id": "0197a2b8-6c4e-7d31-9f00-000000000002",
    "end_user": "user-42",
    "actions": ["create", "read"],
    "models": ["fal-ai/kling-video/o3/4k/text-to-video"],
    "max_spend": "5.00",
    "spent": "2.10",
    "created_at": "2026-11-22T14:30:00Z",
    "expires_at": "2026-11-22T14:40:00Z",
}
AUDIT_EXAMPLE: Final[dict[str, Any]] = {
    "id": "0197a2b8-6c4e-7d31-9f00-3a5f0c1d2e4b",
    "tenant_id": "0197a2b8-6c4e-7d31-9f00-000000000001",
    "actor": "key:0197a2b8-6c4e-7d31-9f00-000000000002",
    "action": "key.revoke",
    "subject": "0197a2b8-6c4e-7d31-9f00-000000000003",
    "facts": {},
    "created_at": "2026-11-22T14:30:00Z",
}


class KeyOrder(BaseModel):
    """A key to be made."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "backend", "scopes": ["jobs:read", "jobs:write"]}]}
    )

    name: Name = Field(description="What it is for, to tell it from others")
    scopes: list[Scope] = Field(min_length=1, max_length=10, description="What it may do; no more than your own key")
    expires_in_s: int | None = Field(
        default=None, ge=1, le=TEN_YEARS_S, description="Seconds until it stops working; default: never"
    )
    requests_per_minute: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Its own limit, instead of the one for all keys"
    )


class KeyRotation(BaseModel):
    """How a key is replaced."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"overlap_s": 3600}]})

    overlap_s: int = Field(default=3600, ge=0, le=2_592_000, description="Seconds for which the old key still works")


class KeyView(BaseModel):
    """A key, without its secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [KEY_EXAMPLE]})

    id: UUID
    name: str
    prefix: str = Field(description="How the secret begins, to tell which one it is")
    scopes: list[str]
    state: Literal["works", "expired", "revoked"]
    requests_per_minute: int | None = Field(description="Null: the limit that is set for all keys, if any")
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute")
    replaced_by: UUID | None = Field(description="The key that came of its rotation")

    @classmethod
    def of(cls, key: ApiKey, /, **more: str) -> Self:
        """*key* as its tenant sees it."""
        return cls(
            id=key.id,
            name=key.name,
            prefix=key.prefix,
            scopes=key.scopes,
            state=state(key),
            requests_per_minute=key.requests_per_minute,
            created_at=_utc(key.created_at),
            expires_at=key.expires_at and _utc(key.expires_at),
            revoked_at=key.revoked_at and _utc(key.revoked_at),
            last_used_at=key.last_used_at and _utc(key.last_used_at),
            replaced_by=key.replaced_by,
            **more,
        )


class NewKeyView(KeyView):
    """A key just made."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**KEY_EXAMPLE, "key": "cs_CwTfQ0aB9mVv0YJ8yqk9u0Wc5dE3u0eHk1Zb0m0Yb6u"}]}
    )

    key: str = Field(description="The secret, shown this once")


class KeyPage(BaseModel):
    """A page of keys, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"data": [KEY_EXAMPLE], "next_cursor": None}]})

    data: list[KeyView]
    next_cursor: str | None = Field(description="Pass as `cursor` for the next page; null on the last")


class TokenOrder(BaseModel):
    """A browser token to be made."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"end_user": "user-42", "actions": ["create", "read"], "max_spend": "5.00"}]},
    )

    end_user: Name = Field(description="Whom of your users it is for: it orders for them, and sees their jobs only")
    actions: list[Action] = Field(min_length=1, max_length=10, description="What it may do; everything else is refused")
    ttl_s: int = Field(default=600, ge=1, le=3600, description="Seconds until it stops working")
    models: list[Name] | None = Field(
        default=None, min_length=1, max_length=100, description="Only these models; default: all"
    )
    max_spend: Amount | None = Field(
        default=None, description="The most that all orders made with it may cost together, in USD; default: no bound"
    )


class TokenView(BaseModel):
    """A browser token, without its secret."""

    model_config = ConfigDict(json_schema_extra={"examples": [TOKEN_EXAMPLE]})

    id: UUID
    key_id: UUID = Field(description="The key that made it, and with which it ends")
    end_user: str
    actions: list[Action]
    models: list[str] | None
    max_spend: str | None
    spent: str = Field(description="The price of all orders made with it so far, in USD")
    created_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, token: BrowserToken, /, **more: str) -> Self:
        """*token* as its tenant sees it."""
        return cls(
            id=token.id,
            key_id=token.api_key_id,
            end_user=token.end_user,
            actions=[Action(action) for action in token.actions],
            models=token.models,
            max_spend=None if token.max_spend is None else money.to_text(Decimal(token.max_spend)),
            spent=money.to_text(Decimal(token.spent)),
            created_at=_utc(token.created_at),
            expires_at=_utc(token.expires_at),
            **more,
        )


class NewTokenView(TokenView):
    """A browser token just made."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{**TOKEN_EXAMPLE, "token": "ct_3u0eHk1Zb0m0Yb6u2bq3s1wq0mVv0YJ8yqk9u0Wc5dE"}]}
    )

    token: str = Field(description="Send it as `Authorization: Bearer <token>`; shown this once")


class TokenPage(BaseModel):
    """A page of browser tokens that work, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"data": [TOKEN_EXAMPLE], "next_cursor": None}]})

    data: list[TokenView]
    next_cursor: str | None = Field(description="Pass as `cursor` for the next page; null on the last")


class AuditView(BaseModel):
    """Something that somebody changed."""

    model_config = ConfigDict(json_schema_extra={"examples": [AUDIT_EXAMPLE]})

    id: UUID
    tenant_id: UUID | None
    actor: str = Field(description="`key:<id>`, `token:<id>`, or `cli:<user>`")
    action: str = Field(description="What was done, as `noun.verb`")
    subject: str = Field(description="To what")
    facts: dict[str, Any]
    created_at: datetime

    @classmethod
    def of(cls, entry: AuditEntry) -> Self:
        """*entry* as an admin sees it."""
        return cls(
            id=entry.id,
            tenant_id=entry.tenant_id,
            actor=entry.actor,
            action=entry.action,
            subject=entry.subject,
            facts=entry.facts,
            created_at=_utc(entry.created_at),
        )


class AuditPage(BaseModel):
    """A page of the audit log, newest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"data": [AUDIT_EXAMPLE], "next_cursor": None}]})

    data: list[AuditView]
    next_cursor: str | None = Field(description="Pass as `cursor` for the next page; null on the last")


def state(key: ApiKey) -> Literal["works", "expired", "revoked"]:
    """Whether *key* works now."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= clock.now() else "works"


def _utc(time: datetime) -> datetime:
    return time.astimezone(UTC)
