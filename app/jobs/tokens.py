"""The token in an attempt's webhook URL: how it is made, read and kept (pure)."""

import hashlib
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from uuid import UUID


def new_token(tenant_id: UUID) -> str:
    """An unguessable name for an attempt's webhook URL; it carries the tenant, so that one look-up finds its row."""
    return urlsafe_b64encode(tenant_id.bytes + secrets.token_bytes(32)).decode()


def tenant_of(token: str) -> UUID | None:
    """The tenant in an attempt's token, or None if it isn't one of ours."""
    try:
        raw = urlsafe_b64decode(token.encode("ascii", "replace"))
    except ValueError:
        return None
    return UUID(bytes=raw[:16]) if len(raw) == 48 else None


def token_digest(token: str) -> bytes:
    """What is kept of an attempt's token."""
    return hashlib.sha256(token.encode()).digest()
