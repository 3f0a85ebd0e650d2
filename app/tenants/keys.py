"""API keys and browser tokens: what they may do, how one is made, shown and compared (pure)."""

import hashlib
import secrets
from enum import StrEnum
from typing import Final, NamedTuple

PREFIX: Final = "cs_"
TOKEN_PREFIX: Final = "ct_"  # noqa: S105 - how they begin
SHOWN: Final = 11


class Scope(StrEnum):
    """What a key may do. Each stands for itself: none brings another along."""

    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    BILLING_READ = "billing:read"
    KEYS_WRITE = "keys:write"
    ADMIN = "admin"


class Action(StrEnum):
    """What a browser token may do; everything else is refused."""

    CREATE = "create"
    READ = "read"
    CANCEL = "cancel"
    EVENTS = "events"
    FILES = "files"


NEEDED: Final = {
    Action.CREATE: Scope.JOBS_WRITE,
    Action.READ: Scope.JOBS_READ,
    Action.CANCEL: Scope.JOBS_WRITE,
    Action.EVENTS: Scope.JOBS_READ,
    Action.FILES: Scope.JOBS_WRITE,
}
"""The scope that a key must have to hand an action on to a token."""


class NewKey(NamedTuple):
    """A key just made; *text* is never to be seen again."""

    text: str
    prefix: str
    digest: bytes


def mint(prefix: str = PREFIX) -> NewKey:
    """A new key of 256 random bits; so much entropy needs no slow hash."""
    text = prefix + secrets.token_urlsafe(32)
    return NewKey(text, text[:SHOWN], digest(text))


def digest(text: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(text.encode()).digest()
