"""API keys: how one is made, shown and compared (pure)."""

import hashlib
import secrets
from enum import StrEnum
from typing import Final, NamedTuple

PREFIX: Final = "cs_"
SHOWN: Final = 11


class Scope(StrEnum):
    """What a key may do."""

    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    BILLING_READ = "billing:read"
    ADMIN = "admin"


class NewKey(NamedTuple):
    """A key just made; *text* is never to be seen again."""

    text: str
    prefix: str
    digest: bytes


def mint() -> NewKey:
    """A new key of 256 random bits; so much entropy needs no slow hash."""
    text = PREFIX + secrets.token_urlsafe(32)
    return NewKey(text, text[:SHOWN], digest(text))


def digest(text: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(text.encode()).digest()
