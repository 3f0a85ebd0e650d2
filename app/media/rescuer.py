"""
We keep the results: copy the files of finished jobs to our own storage, soonest to vanish first.

A copy has a path that only one lease of its row ever writes, so a worker that lost its lease can't spoil
what its successor keeps. It is called safe once it is whole, on disk, hashed and measured, in one fenced
write. No transaction is open while bytes move.
"""

from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

import httpx
import structlog

from app import clock, leases
from app.db import Database
from app.gather import Gatherer
from app.lines import Ask, Few, told
from app.media import mp4
from app.media.download import FEW, Limits, Unfetched, download
from app.media.storage import FAILURES, Storage
from app.media.tables import Output
from app.media.types import media_type

log = structlog.get_logger()

EXTRA: Final = timedelta(days=1)
"""How long past its likely end a file is still asked for: that end is an estimate."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A whole copy in our storage."""

    path: str
    size: int
    sha256: bytes
    content_type: str
    seconds: Decimal | None


class Ended(NamedTuple):
    """A file of which there is a copy now, or, with the reason, never will be."""

    row: Output
    kept: Kept | None
    error: Unfetched | None = None


class Note(Protocol):
    """Writes down what became of files, and so of their jobs."""

    async def __call__(self, ask: Few, members: Sequence[Ended]) -> Sequence[bool]:
        """Whether each of *members* is noted; False for one that isn't ours to speak of any more."""


class Failed(NamedTuple):
    """A file that couldn't be had this time, and why."""

    row: Output
    error: Unfetched


# The files that are `told` of, and whether they are ours still. Found by their keys alone: by what is due, all of that
# would be read. In one order, so that two sets never wait for each other.
MINE: Final = """
    SELECT told.*, outputs.lease_token = told.lease_token AND outputs.due_at IS NOT NULL AS is_ours
    FROM told JOIN outputs USING (tenant_id, job_id, number)
    ORDER BY tenant_id, job_id, number
    FOR UPDATE OF outputs
"""
# Where fal's storage is down, whatever is due fails at once, and soon again.
FAILED: Final = f"""
    WITH told AS MATERIALIZED (
        SELECT * FROM json_to_recordset(%(told)s) AS told (
            tenant_id uuid, job_id uuid, number bigint, lease_token bigint, wait_s double precision, error jsonb
        ) LIMIT (SELECT %(many)s)
    ), mine AS MATERIALIZED (
        {MINE}
    )
    UPDATE outputs SET due_at = now() + make_interval(secs => mine.wait_s), lease_owner = NULL, error = mine.error
    FROM mine
    WHERE outputs.tenant_id = mine.tenant_id AND outputs.job_id = mine.job_id AND outputs.number = mine.number
        AND is_ours
    RETURNING outputs.job_id
"""  # noqa: S608 - of a constant


@dataclass(slots=True)
class Rescuer:
    """Copies files that are due, up to *at_once* at a time."""

    db: Database
    http: httpx.AsyncClient
    storage: Storage
    note: Note
    owner: str
    at_once: int
    lease_s: float
    limits: Limits = field(default_factory=Limits)
    _ended: Gatherer[Ended, bool] = field(init=False)
    _failed: Gatherer[Failed, None] = field(init=False)

    def __post_init__(self) -> None:
        """What ends while earlier ends are being noted is noted together; what fails, likewise."""
        self._ended = Gatherer(self._note_ended)
        self._failed = Gatherer(self._note_failed)

    async def take(self, limit: int) -> list[Coroutine[Any, Any, None]]:
        """The copying of up to *limit* due files, to be done side by side."""
        soonest = (Output.vanishes_at, Output.due_at)
        due = partial(leases.claim, table=Output, owner=self.owner, limit=limit, lease_s=self.lease_s, order_by=soonest)
        rows = await self.db.run(due)
        return [self._rescue(row) for row in sorted(rows, key=lambda row: row.vanishes_at)]

    async def _rescue(self, row: Output) -> None:
        facts = {"job_id": str(row.job_id), "number": row.number}
        try:
            async with leases.holding(self.db, row, self.lease_s):
                kept = await self._copy(row)
        except Unfetched as error:
            final = _is_final(row, error)
            log.warning("output_not_kept", why=error.code, tries=row.tries, final=final, **facts)
            if final:
                await self._ended(Ended(row, None, error))
            else:
                await self._failed(Failed(row, error))
            return
        if await self._ended(Ended(row, kept)):
            log.info("output_kept", size=kept.size, **facts)
            return
        # Somebody else has it, or will: one copy is enough.
        log.warning("output_kept_too_late", **facts)
        with suppress(*FAILURES):
            await self.storage.drop(kept.path)

    async def _copy(self, row: Output) -> Kept:
        folder = f"{row.tenant_id}/{row.job_id}/{row.number}"
        path = f"{folder}/{row.lease_token}"
        try:
            if row.tries > 1:
                await self.storage.sweep(folder, before=row.lease_token)
            async with download(self.http, row.source_url, self.limits) as coming:
                content_type = media_type(row.content_type, coming.content_type)
                await self.storage.put(path, coming.parts(), content_type)
                size, sha256 = coming.size, coming.sha256
            if await self.storage.size(path) != size:
                raise Unfetched("cut_off", "Our copy isn't whole.")
            return Kept(path, size, sha256, content_type, await self._seconds(path, size, content_type))
        except FAILURES as error:
            # The disk is full, or the bucket away: the operator sees it in the row, and it is tried again.
            raise Unfetched("storage_failed", f"Our storage can't take it ({type(error).__name__}).") from error

    async def _seconds(self, path: str, size: int, content_type: str) -> Decimal | None:
        """The length of a video, read from our own copy; None if the file doesn't tell it."""
        if not content_type.startswith(("video/", "application/")):
            return None
        return await mp4.length_s(partial(self.storage.read, path), size)

    async def _note_ended(self, members: Sequence[Ended]) -> Sequence[bool]:
        return await self.db.insist_few(partial(self.note, members=members), for_s=self.lease_s)

    async def _note_failed(self, members: Sequence[Failed]) -> Sequence[None]:
        return await self.db.insist_one(partial(failed, members=members), for_s=self.lease_s)


async def failed(ask: Ask, members: Sequence[Failed]) -> Sequence[None]:
    """Give the files of *members* back, each due again after a while."""
    tries = [
        {
            "tenant_id": row.tenant_id,
            "job_id": row.job_id,
            "number": row.number,
            "lease_token": row.lease_token,
            "wait_s": leases.backoff_s(row.tries),
            "error": error.told(),
        }
        for row, error in members
    ]
    await ask(FAILED, told(tries))
    return [None] * len(members)


def _is_final(row: Output, error: Unfetched) -> bool:
    if error.most_tries is not None:
        return row.tries >= error.most_tries
    return row.tries >= FEW and clock.now() > row.vanishes_at + EXTRA
