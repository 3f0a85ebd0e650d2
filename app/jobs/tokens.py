"""The token in an attempt's webhook URL: how it is made, read and kept (pure)."""

import hashlib
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final
from uuid import UUID

SECRET_BYTES: Final = 34
"""More than can be guessed; with what is named before it a whole number of base64's groups of three."""
OLD_BYTES: Final = 48


def new_token(tenant_id: UUID, attempt_id: UUID) -> str:
    """
    An unguessable name for an attempt's webhook URL.

    It carries the attempt's key, so that its row is found by that. An index of random tokens would cost each attempt
    a page of it that nobody has touched for long, once there are many.
    """
    return urlsafe_b64encode(tenant_id.bytes + attempt_id.bytes + secrets.token_bytes(SECRET_BYTES)).decode()


def key_of(token: str) -> tuple[UUID, UUID | None] | None:
    """
    Tenant and id of the attempt that *token* names, or None if it isn't one of ours; its digest says whether it is its.

    Those that were under way when tokens began to name attempts name their tenant alone.
    """
    try:
        raw = urlsafe_b64decode(token.encode("ascii", "replace"))
    except ValueError:
        return None
    if len(raw) not in {32 + SECRET_BYTES, OLD_BYTES}:
        return None
    return UUID(bytes=raw[:16]), UUID(bytes=raw[16:32]) if len(raw) != OLD_BYTES else None


def token_digest(token: str) -> bytes:
    """What is kept of an attempt's token."""
    return hashlib.sha256(token.encode()).digest()
