"""Links to the events of a job: for a browser's EventSource, which can't say who it is (pure)."""

import struct
from datetime import UTC, datetime
from typing import Final, NamedTuple
from uuid import UUID

from app.media import links

# A length of its own, so that no link to a file passes for one.
LAYOUT: Final = struct.Struct(">16s16s16s16sQ")
NO_TOKEN: Final = UUID(int=0)


class EventLink(NamedTuple):
    """Whose events of which job a link leads to, in whose name it was asked for, and until when (whole seconds)."""

    tenant_id: UUID
    job_id: UUID
    key_id: UUID
    token_id: UUID | None
    expires_at: datetime


def token(key: bytes, link: EventLink) -> str:
    """*link* as the last part of an address."""
    ids = (link.tenant_id, link.job_id, link.key_id, link.token_id or NO_TOKEN)
    return links.sealed(key, LAYOUT.pack(*(one.bytes for one in ids), int(link.expires_at.timestamp())))


def read(key: bytes, text: str) -> EventLink | None:
    """The link in *text*, expired or not; None if it isn't one of ours, to the letter."""
    body = links.unsealed(key, text, LAYOUT.size)
    if body is None:
        return None
    *ids, expires = LAYOUT.unpack(body)
    tenant, job, api_key, browser_token = (UUID(bytes=one) for one in ids)
    by_token = None if browser_token == NO_TOKEN else browser_token
    return EventLink(tenant, job, api_key, by_token, datetime.fromtimestamp(expires, UTC))
