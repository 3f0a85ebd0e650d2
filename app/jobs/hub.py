"""
Everyone who waits for news of jobs, and the one loop that reads it for all of them.

A wake-up, or the clock where none comes, makes it look: one statement for all jobs watched, one for all lists of
events. Only the end of a job that this very process has settled in a set is told without. Nobody who waits holds a
connection. What has been read for someone who isn't taking it is bounded: no more is read for them until they took it,
for Postgres keeps it anyway.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC
from functools import partial
from typing import Any, ClassVar, Final, Generic, Self, TypeVar
from uuid import UUID

import structlog
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from app import sse
from app.db import Database
from app.errors import AppError, Unavailable
from app.jobs import news
from app.jobs.news import Facts, JobPlace, Place, TenantPlace
from app.jobs.schemas import EventView
from app.jobs.states import ENDINGS, JobStatus
from app.tenants import auth
from app.tenants.caller import Caller

log = structlog.get_logger()

TOGETHER_S: Final = 0.02
"""News that comes within it is read at once."""
REST: Final = 4
"""How many times as long as its last look took the hub rests, so that many streams can't eat the process."""
CHECK_S: Final = 30.0
"""How often the keys and tokens of all streams are looked at: a revoked one's streams end within it."""


class TooManyStreams(AppError):
    """This process serves as many streams as it may; try again in a moment."""

    status, code = 503, "too_many_streams"


class TooManyOfKey(AppError):
    """This key or token has as many streams open as it may; close one, or follow all jobs with `/v1/events`."""

    status, code = 429, "too_many_streams_of_key"


@dataclass(slots=True, eq=False)
class Watch:
    """One who waits; a source for a stream."""

    hub: "Hub"
    caller: Caller
    over: bool = field(default=False, init=False)
    behind: bool = field(default=False, init=False)
    _ready: list[bytes] = field(default_factory=list, init=False)
    _waiting: "asyncio.Future[None] | None" = field(default=None, init=False)

    async def take(self) -> bytes | None:
        """What came, once something did; None at the end."""
        while not self._ready:
            if self.over:
                return None
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        part = b"".join(self._ready)
        self._ready.clear()
        if self.behind:
            self.behind = False
            self.hub.wake()
        return part

    def give(self, part: bytes) -> None:
        """Let them take *part*."""
        self._ready.append(part)
        self._stir()

    def end(self) -> None:
        """They can take what is there, and then it is over."""
        self.over = True
        self._stir()

    def leave(self) -> None:
        """They are gone."""
        self.hub.forget(self)

    def wants_more(self) -> bool:
        """Whether all that was read for them is taken; if not, the hub is woken once it is."""
        if self.over:
            return False
        self.behind = bool(self._ready)
        return not self.behind

    def _stir(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


@dataclass(slots=True, eq=False)
class JobWatch(Watch):
    """One who follows a job from after event number *seen*."""

    job_id: UUID
    seen: int
    told: Facts | None = field(default=None, init=False)

    def place(self) -> JobPlace:
        """How far they are."""
        return JobPlace(self.caller.tenant_id, self.job_id, self.seen, self.told)

    def tell(self, rows: Sequence[Row[Any]], parts: Sequence[bytes]) -> None:
        """Give them what is new: *rows* of this place, and the same as *parts*."""
        if self.over:
            # They were told of its end while this was being read.
            return
        last = rows[-1]
        self.told = Facts(last.waiting_for, last.queue_position, last.expected_at)
        for part in parts:
            self.give(part)
        if last.number is not None:
            self.seen = last.number
        if (last.event_status or last.status) in ENDINGS:
            self.end()


@dataclass(slots=True, eq=False)
class ListWatch(Watch):
    """One who follows all of a tenant's events after *at*, as far as they are *wanted*."""

    at: Place
    wanted: "Wanted"

    def place(self) -> TenantPlace:
        """How far they are."""
        return TenantPlace(self.caller.tenant_id, self.at)

    def tell(self, rows: Sequence[Row[Any]], parts: Sequence[bytes]) -> None:
        """Give them what they want of *rows* of this place, which are *parts*."""
        last = rows[-1]
        self.at = Place(last.transaction_id, last.job_id, last.number)
        for row, part in zip(rows, parts, strict=True):
            if self.wanted.has(row) and self.caller.may_see(row):
                self.give(part)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events of a tenant someone wants: all that fit everything that is given."""

    statuses: frozenset[JobStatus] = frozenset()
    model: str | None = None
    end_user: str | None = None
    metadata: frozenset[tuple[str, str]] = frozenset()

    def has(self, row: Row[Any]) -> bool:
        """Whether *row* fits."""
        return (
            (not self.statuses or row.event_status in self.statuses)
            and self.model in {None, row.model}
            and self.end_user in {None, row.end_user}
            and (not self.metadata or self.metadata <= set(row.labels.items()))
        )


W = TypeVar("W", JobWatch, ListWatch)


class Group(Generic[W]):
    """Those who are at the same place; what is new is the same for all of them, so it is written once."""

    def __init__(self, watches: Iterable[W]) -> None:
        self.at: defaultdict[Any, list[W]] = defaultdict(list)
        for watch in watches:
            if watch.wants_more():
                self.at[watch.place()].append(watch)
        self.places: list[Any] = list(self.at)

    def tell(self, rows: Sequence[Row[Any]], write: Any) -> bool:
        """Give everyone what is new at their place; whether some place may have more."""
        by_place: defaultdict[int, list[Row[Any]]] = defaultdict(list)
        for row in rows:
            by_place[row.which].append(row)
        for which, found in by_place.items():
            place = self.places[which - 1]
            parts = [part for row in found if (part := write(place, row)) is not None]
            for watch in self.at[place]:
                watch.tell(found, parts)
        return any(len(found) == news.PAGE for found in by_place.values())


class Hub:
    """Reads news for everyone who watches, while the block runs."""

    rest: ClassVar[int] = REST

    def __init__(self, db: Database, *, poll_s: float, at_once: int, per_key: int, check_s: float = CHECK_S) -> None:
        self.woken = asyncio.Event()
        self._db = db
        self._poll_s = poll_s
        self._at_once = at_once
        self._per_key = per_key
        self._check_s = check_s
        self._watches: dict[Watch, None] = {}
        self._followers: defaultdict[UUID, dict[JobWatch, None]] = defaultdict(dict)
        self._of_key: Counter[UUID] = Counter()
        self._closed = False
        self._running: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Begin to read."""
        self._running = [asyncio.create_task(self._read()), asyncio.create_task(self._check())]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Read no more."""
        self.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._watches)

    def follow(self, caller: Caller, job_id: UUID, *, seen: int) -> JobWatch:
        """A watch on a job, from after event number *seen*. Raises TooManyStreams, TooManyOfKey or Unavailable."""
        watch = JobWatch(self, caller, job_id, seen)
        self._join(watch)
        self._followers[job_id][watch] = None
        return watch

    def follow_all(self, caller: Caller, at: Place, wanted: Wanted) -> ListWatch:
        """A watch on all of a tenant's jobs, from after *at*. Raises as `follow` does."""
        watch = ListWatch(self, caller, at, wanted)
        watch.give(sse.line("{}", event="start", id=at.encode()))
        self._join(watch)
        return watch

    def _join(self, watch: Watch) -> None:
        if self._closed:
            raise Unavailable("This process is about to stop.", headers={"Retry-After": "1"})
        if len(self._watches) >= self._at_once:
            raise TooManyStreams(headers={"Retry-After": "5"})
        if self._of_key[_holder(watch.caller)] >= self._per_key:
            raise TooManyOfKey(headers={"Retry-After": "5"})
        self._watches[watch] = None
        self._of_key[_holder(watch.caller)] += 1
        self.wake()

    def forget(self, watch: Watch) -> None:
        """Read nothing more for *watch*."""
        if watch not in self._watches:
            return
        del self._watches[watch]
        if isinstance(watch, JobWatch):
            del self._followers[watch.job_id][watch]
            if not self._followers[watch.job_id]:
                del self._followers[watch.job_id]
        holder = _holder(watch.caller)
        self._of_key[holder] -= 1
        if not self._of_key[holder]:
            del self._of_key[holder]

    async def ended(self, job: Any) -> None:
        """
        Tell who has seen all that was before it that *job*, a row with `why`, has just ended; it is committed.

        It is on its way to them when this returns.
        """
        if job.id not in self._followers:
            return
        event = EventView(
            number=job.event_count,
            job_id=job.id,
            status=JobStatus(job.status),
            why=job.why,
            created_at=job.finished_at.astimezone(UTC),
            waiting=None,
        )
        part = sse.line(event.model_dump_json(), event="status", id=event.number)
        for watch in self._followers[job.id]:
            if watch.seen == job.event_count - 1 and not watch.over:
                watch.seen = job.event_count
                watch.give(part)
                watch.end()
        await asyncio.sleep(0)

    def wake(self) -> None:
        """Something may be new."""
        self.woken.set()

    def close(self) -> None:
        """End everyone's stream, and take nobody new: the process stops."""
        self._closed = True
        for watch in self._watches:
            watch.end()

    async def _read(self) -> None:
        while True:
            with suppress(TimeoutError):
                # Who joins wakes it; until then there is nobody to read for.
                async with asyncio.timeout(self._poll_s if self._watches else None):
                    await self.woken.wait()
            self.woken.clear()
            since = time.monotonic()
            try:
                if await self._look():
                    self.wake()
            except Exception as error:  # noqa: BLE001 - it outlives whatever one look ran into
                # Only its kind: a driver's text quotes the values of the statement.
                log.warning("news_not_read", why=type(error).__name__)
                await asyncio.sleep(self._poll_s)
            await asyncio.sleep(max(TOGETHER_S, self.rest * (time.monotonic() - since)))

    async def _look(self) -> bool:
        """Read once for all; whether there may be more."""
        jobs = Group(watch for watch in self._watches if isinstance(watch, JobWatch))
        lists = Group(watch for watch in self._watches if isinstance(watch, ListWatch))
        more = False
        if jobs.places:
            rows = await self._db.run_one(partial(news.of_jobs, places=jobs.places))
            more |= jobs.tell(rows, _of_job)
        if lists.places:
            rows = await self._db.run_one(partial(news.of_tenants, places=lists.places))
            more |= lists.tell(rows, _of_list)
        return more

    async def _check(self) -> None:
        """End the streams of keys and tokens that were revoked, or have expired."""
        while True:
            await asyncio.sleep(self._check_s)
            callers = {watch.caller for watch in self._watches}
            if not callers:
                continue
            try:
                async with self._db.session() as session:
                    bad = await _ended(session, callers)
            except Exception as error:  # noqa: BLE001 - while Postgres is away, streams tell nothing anyway
                log.warning("keys_not_checked", why=type(error).__name__)
                continue
            # Who came meanwhile wasn't asked about.
            for watch in self._watches:
                if watch.caller in bad:
                    watch.end()


async def _ended(session: AsyncSession, callers: Collection[Caller]) -> set[Caller]:
    """Those of *callers* whose key or token works no more."""
    keys = {(caller.tenant_id, caller.key_id) for caller in callers}
    tokens = {(caller.tenant_id, caller.token.token_id) for caller in callers if caller.token is not None}
    good = await auth.still_good(session, keys)
    good_tokens = await auth.tokens_still_good(session, tokens) if tokens else set()
    return {
        caller
        for caller in callers
        if caller.key_id not in good or (caller.token is not None and caller.token.token_id not in good_tokens)
    }


def _holder(caller: Caller) -> UUID:
    """Whose streams are counted together: a page's token mustn't use up what its key may have."""
    return caller.token.token_id if caller.token is not None else caller.key_id


def _of_job(place: JobPlace, row: Row[Any]) -> bytes | None:
    if row.number is not None:
        return sse.line(EventView.of(place.job_id, row).model_dump_json(), event="status", id=row.number)
    if row.status in ENDINGS:
        return None
    return sse.line(EventView.of(place.job_id, row).model_dump_json(), event="progress")


def _of_list(_: TenantPlace, row: Row[Any]) -> bytes:
    place = Place(row.transaction_id, row.job_id, row.number)
    return sse.line(EventView.of(row.job_id, row).model_dump_json(), event="status", id=place.encode())
