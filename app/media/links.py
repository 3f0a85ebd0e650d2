"""Links to kept files: short-lived, and signed, so that a player can follow them without a key (pure)."""

import hashlib
import hmac
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from typing import Final, NamedTuple
from uuid import UUID

VALID_S: Final = 900.0
LAYOUT: Final = struct.Struct(">16s16sIQ")


class Link(NamedTuple):
    """What a link leads to, and until when (whole seconds)."""

    tenant_id: UUID
    job_id: UUID
    number: int
    expires_at: datetime


def key_of(secret: str) -> bytes:
    """The signing key that a secret in words stands for."""
    return hashlib.sha256(b"callsheet links\0" + secret.encode()).digest()


def token(key: bytes, link: Link) -> str:
    """*link* as the last part of an address."""
    ids = (link.tenant_id.bytes, link.job_id.bytes)
    return sealed(key, LAYOUT.pack(*ids, link.number, int(link.expires_at.timestamp())))


def read(key: bytes, text: str) -> Link | None:
    """The link in *text*, expired or not; None if it isn't one of ours, to the letter."""
    body = unsealed(key, text, LAYOUT.size)
    if body is None:
        return None
    tenant, job, number, expires = LAYOUT.unpack(body)
    return Link(UUID(bytes=tenant), UUID(bytes=job), number, datetime.fromtimestamp(expires, UTC))


def sealed(key: bytes, body: bytes) -> str:
    """*body* and its signature, as a part of an address."""
    return urlsafe_b64encode(body + _signature(key, body)).decode().rstrip("=")


def unsealed(key: bytes, text: str, size: int) -> bytes | None:
    """The *size* bytes that were sealed in *text*; None if they weren't, to the letter."""
    try:
        raw = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
    except ValueError:
        return None
    body, signature = raw[:size], raw[size:]
    if len(body) != size or not hmac.compare_digest(signature, _signature(key, body)):
        return None
    # Base64 has several spellings of the same bytes; ours is one.
    return body if urlsafe_b64encode(raw).decode().rstrip("=") == text else None


def _signature(key: bytes, body: bytes) -> bytes:
    return hmac.new(key, body, hashlib.sha256).digest()
