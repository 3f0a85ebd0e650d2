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
from typing import Any, Final, NamedTuple
from uuid import UUID

import httpx
import structlog
from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from app import clock
from app.callbacks import outcomes, signing
from app.callbacks.claims import Lane, claim, lanes
from app.callbacks.outcomes import Told
from app.callbacks.post import Answer, post
from app.callbacks.tables import Delivery, Endpoint
from app.db import Database, new_id
from app.gather import Gatherer

log = structlog.get_logger()

SHARE: Final = 4
"""One endpoint has at most a quarter of the places."""


class Parcel(NamedTuple):
    """A delivery that is ours for a while, and where it goes."""

    delivery: Delivery
    endpoint: Endpoint


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
        parcels = await self.db.run(partial(self._parcels, limit=limit))
        self._under_way.update(_lane(parcel.delivery) for parcel in parcels)
        return [self._deliver(parcel) for parcel in parcels]

    async def _parcels(self, session: AsyncSession, limit: int) -> list[Parcel]:
        share = max(1, self.at_once // SHARE)
        full = [lane for lane, busy in self._under_way.items() if busy >= share]
        rooms = {lane: share - self._under_way[lane] for lane in await lanes(session, without=full, limit=limit)}
        if not rooms:
            return []
        due = await claim(session, rooms, owner=self.owner, limit=limit, lease_s=self.lease_s)
        wanted = tuple_(Endpoint.tenant_id, Endpoint.id).in_({tuple(_lane(delivery)) for delivery in due})
        endpoints = {(one.tenant_id, one.id): one for one in await session.scalars(select(Endpoint).where(wanted))}
        return [Parcel(delivery, endpoints[_lane(delivery)]) for delivery in due]

    async def _deliver(self, parcel: Parcel) -> None:
        try:
            await self._tell(parcel)
        finally:
            lane = _lane(parcel.delivery)
            self._under_way[lane] -= 1
            if not self._under_way[lane]:
                del self._under_way[lane]

    async def _tell(self, parcel: Parcel) -> None:
        delivery, endpoint = parcel
        facts = {"delivery_id": str(delivery.id), "endpoint_id": str(endpoint.id), "try_number": delivery.tries}
        url = delivery.url or endpoint.url
        if endpoint.disabled_at is not None or url is None:
            # It was disabled just when this was written.
            await self.db.insist(partial(outcomes.given_up, delivery=delivery), for_s=self.lease_s)
            return
        at = clock.now()
        signed = signing.headers(delivery.id, at, delivery.body, signers(endpoint))
        answer = await post(self.http, url, delivery.body, signed, timeout_s=self.timeout_s)
        if answer.delivered:
            noted = await self._delivered(Told(delivery, answer, new_id()))
        else:
            failed = partial(self._note, parcel=parcel, answer=answer, id=new_id())
            noted = await self.db.insist(failed, for_s=self.lease_s)
        if not noted:
            log.warning("callback_noted_too_late", **facts)
        elif answer.delivered:
            log.info("callback_delivered", duration_ms=answer.duration_ms, **facts)
        else:
            log.warning("callback_failed", status=answer.status_code, why=answer.error, outcome=noted, **facts)

    async def _note_all(self, members: Sequence[Told]) -> Sequence[outcomes.Noted | None]:
        return await self.db.insist(partial(self._note_delivered, members=members), for_s=self.lease_s)

    async def _note_delivered(self, session: AsyncSession, members: Sequence[Told]) -> Sequence[outcomes.Noted | None]:
        return await outcomes.delivered(session, members)

    async def _note(self, session: AsyncSession, parcel: Parcel, answer: Answer, id: UUID) -> outcomes.Noted | None:  # noqa: A002
        return await outcomes.note(
            session, parcel.delivery, parcel.endpoint, answer, attempt_id=id, disable_after_s=self.disable_after_s
        )


def signers(endpoint: Endpoint) -> list[bytes]:
    """The secrets that count just now, the newest first."""
    old, until = endpoint.old_secret, endpoint.old_secret_until
    return [endpoint.secret] + ([old] if old is not None and until is not None and until > clock.now() else [])


def _lane(delivery: Delivery) -> Lane:
    return Lane(delivery.tenant_id, delivery.endpoint_id)
