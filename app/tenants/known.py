"""
What a process knows of its callers: who they are, how often they ask, and when their keys were last used.

A look-up is remembered for REMEMBERED_S seconds, so that is how long a key may work after it was revoked by
another process; the one that revokes it forgets it at once.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import func
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app import clock, lines
from app.db import Database
from app.pruning import delete_oldest, in_batches
from app.tenants.caller import Caller
from app.tenants.rates import Allowance, Rates
from app.tenants.tables import BrowserToken

log = structlog.get_logger()

REMEMBERED_S: Final = 3.0
RENEWED_S: Final = 1.0
"""How long before it would be forgotten a key that is in use may be looked up along with another."""
RENEWED: Final = 64
REMEMBERED: Final = 10_000
WRITTEN_EVERY_S: Final = 15.0
WRITTEN_AT_ONCE: Final = 100
"""Keys in one statement, so that the note of thousands holds up no request for long."""
NOTE_USE: Final = """
    WITH stale AS MATERIALIZED (
        SELECT tenant_id, id FROM api_keys
        WHERE (tenant_id, id) IN (
            SELECT tenant_id, id FROM json_to_recordset(%(told)s) AS used (tenant_id uuid, id uuid)
            LIMIT (SELECT %(many)s)
        ) AND (last_used_at IS NULL OR last_used_at < now() - interval '1 minute')
        -- Most often another process notes the same; else its next use is noted.
        FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE api_keys SET last_used_at = now() FROM stale
    WHERE api_keys.tenant_id = stale.tenant_id AND api_keys.id = stale.id
    RETURNING api_keys.id
"""
TOKENS_KEPT: Final = timedelta(days=1)


class Known:
    """The callers of one process; the numbers are requests a minute, None for as many as they like."""

    def __init__(
        self, *, per_key: int | None, per_token: int, failures: int, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_key = per_key
        self._per_token = per_token
        self._per_address = failures
        self._now = now
        self._callers: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()
        self._strangers: OrderedDict[bytes, float] = OrderedDict()
        self._busy: set[bytes] = set()
        self._asked = Rates(now=now)
        self._failed = Rates(now=now)
        self._used: set[tuple[UUID, UUID]] = set()
        self.forgotten = 0
        """How often something was forgotten: what was asked for before, and answered after, may be out of date."""

    def look(self, digest: bytes) -> Caller | None:
        """The caller that *digest* was found to be a moment ago, or None."""
        until, caller = self._callers.get(digest, (0.0, None))
        if until <= self._now():
            return None
        self._busy.add(digest)
        return caller

    def is_stranger(self, digest: bytes) -> bool:
        """Whether *digest* was found to be nobody's a moment ago."""
        return self._strangers.get(digest, 0.0) > self._now()

    def remember(self, digest: bytes, caller: Caller | None) -> None:
        """For a moment, and never past its end, *digest* stands for *caller*."""
        until = self._now() + REMEMBERED_S
        self._busy.discard(digest)
        if caller is None:
            self._callers.pop(digest, None)
            self._strangers[digest] = until
            _bound(self._strangers)
            return
        if caller.expires_at is not None:
            until = min(until, self._now() + (caller.expires_at - clock.now()).total_seconds())
        self._callers[digest] = until, caller
        self._callers.move_to_end(digest)
        _bound(self._callers)

    def lapsing(self) -> list[bytes]:
        """
        Keys that were used since they were looked up, and would be forgotten soon; at most RENEWED.

        Whoever looks up one asks for these along with it; else each of a thousand keys in use makes a caller wait.
        """
        now = self._now()
        soon: list[bytes] = []
        for digest in list(self._busy):
            until, caller = self._callers.get(digest, (0.0, None))
            if caller is None or until <= now:
                self._busy.discard(digest)
            elif until <= now + RENEWED_S and caller.token is None and len(soon) < RENEWED:
                soon.append(digest)
        return soon

    def forget(self, id_: UUID) -> None:
        """The key or token *id_* was changed or revoked: look again."""
        self.forgotten += 1
        gone = [
            digest
            for digest, (_, caller) in self._callers.items()
            if id_ == caller.key_id or (caller.token is not None and id_ == caller.token.token_id)
        ]
        for digest in gone:
            del self._callers[digest]

    def asked(self, caller: Caller) -> Allowance | None:
        """One more request of *caller*: what is left to it, or None if it isn't counted."""
        self._used.add((caller.tenant_id, caller.key_id))
        if caller.token is not None:
            return self._asked.take(caller.token.token_id, self._per_token)
        per_minute = caller.requests_per_minute or self._per_key
        return self._asked.take(caller.key_id, per_minute) if per_minute is not None else None

    def failed(self, address: str) -> Allowance:
        """One more request from *address* that nobody could be found for."""
        return self._failed.take(address, self._per_address)

    async def keep_books(self, db: Database) -> None:
        """Write down now and then which keys were used, for ever."""
        while True:
            await asyncio.sleep(WRITTEN_EVERY_S)
            try:
                await self.note_use(db)
            except (SQLAlchemyError, OSError) as error:
                log.warning("key_use_not_noted", why=type(error).__name__)

    async def note_use(self, db: Database) -> None:
        """Write down that the keys seen lately were used, each at most once a minute."""
        used = list(self._used)
        for first in range(0, len(used), WRITTEN_AT_ONCE):
            some = used[first : first + WRITTEN_AT_ONCE]
            told = lines.told([{"tenant_id": tenant_id, "id": id_} for tenant_id, id_ in some])
            await db.run_one(partial(_note, told=told))
            self._used.difference_update(some)


async def _note(ask: lines.Ask, told: dict[str, Any]) -> None:
    await ask(NOTE_USE, told)


async def prune(db: Database, **bounds: int) -> int:
    """Delete tokens that expired a day ago, within *bounds*; how many. What was ordered with them stays on the jobs."""
    return await in_batches(db, delete_expired, **bounds)


async def delete_expired(session: AsyncSession, limit: int) -> int:
    """One batch of that."""
    over = BrowserToken.expires_at < func.now() - TOKENS_KEPT
    return await delete_oldest(session, BrowserToken, BrowserToken.expires_at, over, limit=limit)


def _bound(remembered: OrderedDict[bytes, Any]) -> None:
    if len(remembered) > REMEMBERED:
        remembered.popitem(last=False)
