"""
We call callers: lease what is due to be told, sign it, post it, note the answer.

A delivery is told at least once: a worker that dies between post and note leaves the row to come due again, with the
same id and the same bytes. No transaction is open while a receiver thinks. A receiver that hangs takes a place of its
own endpoint's share, never everybody's.
"""

from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import httpx
import structlog

from app import clock
from app.callbacks import outcomes, signing
from app.callbacks.claims import Lane, Parcel, lanes, parcels
from app.callbacks.outcomes import Told
from app.callbacks.post import post
from app.db import Database, new_id
from app.gather import Gatherer

log = structlog.get_logger()

SHARE: Final = 4
"""One endpoint has at most a quarter of the places."""


@dataclass(slots=True)
class Sender:
    """Delivers what is due, up to *at_once* at a time."""

    db: Database
    http: httpx.AsyncClient
    owner: str
    at_once: int
    lease_s: float
    timeout_s: float
    disable_after_s: float
    _under_way: Counter[Lane] = field(default_factory=Counter)
    _delivered: Gatherer[Told, outcomes.Noted | None] = field(init=False)

    def __post_init__(self) -> None:
        """What is delivered while earlier deliveries are being noted is noted together."""
        self._delivered = Gatherer(self._note_all)

    async def take(self, limit: int) -> list[Coroutine[Any, Any, None]]:
        """The delivery of up to *limit* due callbacks, to be done side by side."""
        due = await self._parcels(limit)
        self._under_way.update(parcel.lane for parcel in due)
        return [self._deliver(parcel) for parcel in due]

    async def _parcels(self, limit: int) -> list[Parcel]:
        share = max(1, self.at_once // SHARE)
        full = [lane for lane, busy in self._under_way.items() if busy >= share]
        # A plan made while next to nothing was to be told reads all there is, once there is a lot.
        due = await self.db.run_one(partial(lanes, without=full, limit=limit), plan_anew=True)
        if not due:
            return []
        rooms = {lane: share - self._under_way[lane] for lane in due}
        return await self.db.run_one(partial(parcels, rooms=rooms, owner=self.owner, limit=limit, lease_s=self.lease_s))

    async def _deliver(self, parcel: Parcel) -> None:
        try:
            await self._tell(parcel)
        finally:
            self._under_way[parcel.lane] -= 1
            if not self._under_way[parcel.lane]:
                del self._under_way[parcel.lane]

    async def _tell(self, parcel: Parcel) -> None:
        facts = {"delivery_id": str(parcel.id), "endpoint_id": str(parcel.endpoint_id), "try_number": parcel.tries}
        url = parcel.own_url or parcel.endpoint_url
        if parcel.disabled_at is not None or url is None:
            # It was disabled just when this was written.
            await self.db.insist(partial(outcomes.given_up, parcel=parcel), for_s=self.lease_s)
            return
        signed = signing.headers(parcel.id, clock.now(), parcel.body, signers(parcel))
        answer = await post(self.http, url, parcel.body, signed, timeout_s=self.timeout_s)
        if answer.delivered:
            noted = await self._delivered(Told(parcel, answer, new_id()))
        else:
            failed = partial(
                outcomes.note,
                parcel=parcel,
                answer=answer,
                attempt_id=new_id(),
                disable_after_s=self.disable_after_s,
            )
            noted = await self.db.insist(failed, for_s=self.lease_s)
        if not noted:
            log.warning("callback_noted_too_late", **facts)
        elif answer.delivered:
            log.info("callback_delivered", duration_ms=answer.duration_ms, **facts)
        else:
            log.warning("callback_failed", status=answer.status_code, why=answer.error, outcome=noted, **facts)

    async def _note_all(self, members: Sequence[Told]) -> Sequence[outcomes.Noted | None]:
        return await self.db.insist_one(partial(outcomes.delivered, members=members), for_s=self.lease_s)


def signers(parcel: Parcel) -> list[bytes]:
    """The secrets that count just now, the newest first."""
    old, until = parcel.old_secret, parcel.old_secret_until
    return [parcel.secret] + ([old] if old is not None and until is not None and until > clock.now() else [])
