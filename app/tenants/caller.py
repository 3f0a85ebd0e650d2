"""Who a request acts for, and what it may do and see."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol
from uuid import UUID

from app.errors import AppError
from app.tenants.keys import Action


class Forbidden(AppError):
    """This key or token may not do that."""

    status, code = 403, "forbidden"


class Owned(Protocol):
    """Something made for an end user, with a model: a job."""

    @property
    def end_user(self) -> str | None: ...

    @property
    def model(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Narrowing:
    """What a browser token leaves of its tenant; no *models* means all, no *max_spend* no bound (USD)."""

    token_id: UUID
    end_user: str
    actions: frozenset[Action]
    models: frozenset[str] | None = None
    max_spend: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """
    Who a request acts for, and what it may do.

    With a browser token, *token* narrows that: ask `may_see` of what was read, or put the same into a WHERE
    clause, as `app.jobs.queries.visible` does.
    """

    tenant_id: UUID
    key_id: UUID
    scopes: frozenset[str]
    token: Narrowing | None = None
    expires_at: datetime | None = None
    requests_per_minute: int | None = None

    @property
    def actor(self) -> str:
        """How the audit log names it."""
        return f"token:{self.token.token_id}" if self.token else f"key:{self.key_id}"

    def may_see(self, thing: Owned) -> bool:
        """Whether *thing*, one of the tenant's own, is within the token's end user and models."""
        return self.token is None or (thing.end_user == self.token.end_user and self.may_use(thing.model))

    def may_use(self, model: str) -> bool:
        """Whether *model* is one that the token lists."""
        return self.token is None or self.token.models is None or model in self.token.models

    def acting_for(self, end_user: str | None) -> str | None:
        """The end user whom what is ordered is for. Raises Forbidden if a token names another than its own."""
        if self.token is None:
            return end_user
        if end_user not in {None, self.token.end_user}:
            raise Forbidden("This token orders for its own end user only; leave end_user out.")
        return self.token.end_user
