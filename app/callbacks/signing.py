"""How a callback is signed: Standard Webhooks, with both secrets while one is being replaced (pure)."""

import secrets
from base64 import b64encode
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from standardwebhooks import Webhook


def new_secret() -> bytes:
    """256 random bits."""
    return secrets.token_bytes(32)


def shown(secret: bytes) -> str:
    """*secret* as receivers' libraries take it."""
    return "whsec_" + b64encode(secret).decode()


def headers(webhook_id: UUID, at: datetime, body: str, signers: Sequence[bytes]) -> dict[str, str]:
    """What goes with *body*: its id, the time *at* of this try in UTC, and a signature for each of *signers*."""
    return {
        "webhook-id": str(webhook_id),
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(str(webhook_id), at, body) for secret in signers),
    }
