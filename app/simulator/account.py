"""The account that everything is charged to: who may call, whether it's locked, what it has spent."""

import secrets
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from app.simulator.clock import Clock
from app.simulator.config import SimulatorConfig

EXHAUSTED: Final = "Exhausted balance"


@dataclass(slots=True)
class Token:
    """A credential that was minted here: for browsers (some apps only) or for the CDN."""

    apps: frozenset[str]
    expires_at: float


@dataclass(slots=True)
class Account:
    """One fal account."""

    config: SimulatorConfig
    clock: Clock
    spent: Decimal = Decimal(0)
    locked_for: str | None = None
    """The reason fal gives for a lock, or None while it's open."""
    locked_keys: dict[str, str] = field(default_factory=dict)
    """Keys for which it is locked though it's open for others, as if they were of another account; and why."""
    balance: Decimal | None = None
    """Prepaid, before what was spent; None = endless."""
    tokens: dict[str, Token] = field(default_factory=dict)

    @property
    def lock(self) -> str | None:
        """Why nothing may be ordered now, or None."""
        if self.locked_for is None and self.balance is not None and self.spent >= self.balance:
            return EXHAUSTED
        return self.locked_for

    def lock_for(self, authorization: str | None) -> str | None:
        """Why the bearer of the header *authorization* may order nothing now, or None."""
        return self.lock or self.locked_keys.get((authorization or "").partition(" ")[2])

    def admits(self, authorization: str | None, app: str | None = None) -> bool:
        """Whether the header *authorization* lets its bearer call *app*."""
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() == "bearer" and (token := self.tokens.get(secret)) is not None:
            named = app is None or not token.apps or not token.apps.isdisjoint({app, app.rpartition("/")[2]})
            return named and self.clock.now() < token.expires_at
        return scheme.lower() in {"key", "bearer"} and self._known(secret)

    def admits_admin(self, authorization: str | None) -> bool:
        """Whether the header *authorization* may read billing."""
        secret = (authorization or "").partition(" ")[2]
        return self.admits(authorization) and (not self.config.admin_keys or secret in self.config.admin_keys)

    def mint(self, apps: frozenset[str], lives_s: float) -> tuple[str, float]:
        """A new token and when it ends."""
        secret = secrets.token_urlsafe(32)
        expires_at = self.clock.now() + lives_s
        self.tokens[secret] = Token(apps, expires_at)
        return secret, expires_at

    def _known(self, secret: str) -> bool:
        keys = self.config.keys | self.config.admin_keys
        return secret in keys if keys else bool(secret.strip())
