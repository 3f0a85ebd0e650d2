"""What an answer means: for its delivery, for its endpoint, and for what else was to be told there."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app import clock
from app.callbacks.claims import Lane, Parcel
from app.callbacks.post import Answer
from app.callbacks.schedule import retry_s
from app.callbacks.tables import Attempt, Delivery, DeliveryStatus, Endpoint
from app.lines import Ask, told

log = structlog.get_logger()

OVER: Final[dict[str, Any]] = {"due_at": None, "lease_owner": None}


class Noted(StrEnum):
    """What became of a delivery."""

    DELIVERED = "delivered"
    AGAIN = "again"
    DEAD = "dead"


class Why(StrEnum):
    """Why a delivery was given up, or an endpoint disabled."""

    EXHAUSTED = "exhausted"
    GONE = "gone"
    FAILING = "failing"
    DISABLED = "endpoint_disabled"
    BY_CALLER = "by_caller"
    DELETED = "deleted"


async def note(
    session: AsyncSession, parcel: Parcel, answer: Answer, *, attempt_id: UUID, disable_after_s: float
) -> Noted | None:
    """
    Note what came of sending *parcel*; None if somebody took it meanwhile, whose answer counts then.

    The row carries the token it was taken with, so noting twice changes nothing.
    """
    wait_s = None if answer.gone else retry_s(parcel.tries, retry_after_s=answer.retry_after_s)
    if answer.delivered:
        noted, values = Noted.DELIVERED, {"status": DeliveryStatus.DELIVERED, "delivered_at": func.now(), **OVER}
    elif wait_s is not None:
        noted, values = Noted.AGAIN, {"due_at": func.now() + timedelta(seconds=wait_s), "lease_owner": None}
    else:
        noted, values = Noted.DEAD, _dead(Why.GONE if answer.gone else Why.EXHAUSTED)
    # The answer to an earlier commit may have got lost; then this try is on record.
    if await session.get(Attempt, (parcel.tenant_id, attempt_id)) is not None:
        return noted
    kept = await session.execute(
        update(Delivery).where(*_ours(parcel)).values(values).execution_options(synchronize_session=False)
    )
    if not kept.rowcount:  # type: ignore[attr-defined]
        return None
    session.add(
        Attempt(
            tenant_id=parcel.tenant_id,
            id=attempt_id,
            delivery_id=parcel.id,
            status_code=answer.status_code,
            error=answer.error,
            body=answer.body,
            duration_ms=answer.duration_ms,
        )
    )
    await session.flush()
    if answer.gone:
        await _gone(session, parcel)
    if parcel.own_url is None:
        await _judge(session, parcel.lane, answer, last=noted is Noted.DEAD, disable_after_s=disable_after_s)
    return noted


@dataclass(frozen=True, slots=True)
class Told:
    """A delivery that its receiver took, and the id under which that try is noted."""

    parcel: Parcel
    answer: Answer
    attempt_id: UUID


# In one order, so that two sets never wait for each other.
DELIVERED: Final = """
    WITH told AS MATERIALIZED (
        SELECT *
        FROM json_to_recordset(%(told)s) AS told (
            tenant_id uuid, id uuid, lease_token bigint, attempt_id uuid, status_code bigint, body text,
            duration_ms bigint
        ) LIMIT (SELECT %(many)s)
    ), mine AS MATERIALIZED (
        -- Found by their keys alone: by what is due, all of that would be read.
        SELECT told.*, d.lease_token = told.lease_token AND d.due_at IS NOT NULL AS is_ours
        FROM callback_deliveries AS d JOIN told ON d.tenant_id = told.tenant_id AND d.id = told.id
        ORDER BY d.tenant_id, d.id
        FOR UPDATE OF d
    ), kept AS (
        UPDATE callback_deliveries AS d
        SET status = 'delivered', delivered_at = now(), due_at = NULL, lease_owner = NULL
        FROM mine
        WHERE d.tenant_id = mine.tenant_id AND d.id = mine.id AND is_ours
        RETURNING d.tenant_id, d.id, d.endpoint_id, d.url, attempt_id, status_code, mine.body, duration_ms
    ), tried AS (
        INSERT INTO callback_attempts (tenant_id, id, delivery_id, status_code, body, duration_ms)
        SELECT tenant_id, attempt_id, id, status_code, body, duration_ms FROM kept
    ), working AS (
        UPDATE callback_endpoints AS e SET failing_since = NULL, warned_at = NULL
        FROM (SELECT DISTINCT tenant_id, endpoint_id FROM kept WHERE url IS NULL) AS reached
        WHERE e.tenant_id = reached.tenant_id AND e.id = reached.endpoint_id AND e.failing_since IS NOT NULL
    )
    SELECT attempt_id FROM kept
    UNION ALL
    -- The answer to an earlier commit may have got lost; then this try is on record.
    SELECT (SELECT a.id FROM callback_attempts AS a WHERE a.tenant_id = told.tenant_id AND a.id = told.attempt_id)
    FROM told WHERE attempt_id NOT IN (SELECT attempt_id FROM kept)
"""


async def delivered(ask: Ask, members: Sequence[Told]) -> list[Noted | None]:
    """`note` for many that their receivers took, in one statement."""
    tries = [
        {
            "tenant_id": member.parcel.tenant_id,
            "id": member.parcel.id,
            "lease_token": member.parcel.lease_token,
            "attempt_id": member.attempt_id,
            "status_code": member.answer.status_code,
            "body": member.answer.body,
            "duration_ms": member.answer.duration_ms,
        }
        for member in members
    ]
    noted = {row.attempt_id for row in await ask(DELIVERED, told(tries))}
    return [Noted.DELIVERED if member.attempt_id in noted else None for member in members]


async def given_up(session: AsyncSession, parcel: Parcel) -> None:
    """Give *parcel* up unsent: its endpoint is disabled."""
    await session.execute(
        update(Delivery).where(*_ours(parcel)).values(_dead(Why.DISABLED)).execution_options(synchronize_session=False)
    )


async def disable(session: AsyncSession, tenant_id: UUID, endpoint_id: UUID, why: Why) -> None:
    """Call the endpoint no more, and give up what was still to be told there; that can be replayed later."""
    key = _endpoint(tenant_id, endpoint_id)
    if not await _change(session, key, Endpoint.disabled_at.is_(None), disabled_at=func.now(), disabled_why=why):
        return
    waiting = and_(Delivery.endpoint_id == endpoint_id, Delivery.due_at.is_not(None))
    await _give_up(session, tenant_id, waiting, Why.DISABLED)
    log.warning("endpoint_disabled", endpoint_id=str(endpoint_id), why=why)


async def _gone(session: AsyncSession, parcel: Parcel) -> None:
    if parcel.own_url is None:
        await disable(session, parcel.tenant_id, parcel.endpoint_id, Why.GONE)
        return
    # A job's own address: only what this job has still to tell there.
    same = and_(Delivery.job_id == parcel.job_id, Delivery.endpoint_id == parcel.endpoint_id)
    await _give_up(session, parcel.tenant_id, and_(same, Delivery.due_at.is_not(None)), Why.GONE)


async def _give_up(session: AsyncSession, tenant_id: UUID, which: ColumnElement[bool], why: Why) -> None:
    # What is being sent right now, too: then its answer changes nothing any more.
    await session.execute(
        update(Delivery)
        .where(Delivery.tenant_id == tenant_id, which)
        .values(lease_token=Delivery.lease_token + 1, **_dead(why))
        .execution_options(synchronize_session=False)
    )


async def _judge(session: AsyncSession, lane: Lane, answer: Answer, *, last: bool, disable_after_s: float) -> None:
    """Remember since when nothing gets through; warn at half of *disable_after_s*, disable after all of it."""
    key = _endpoint(*lane)
    if answer.delivered:
        await _change(session, key, Endpoint.failing_since.is_not(None), failing_since=None, warned_at=None)
        return
    await _change(session, key, Endpoint.failing_since.is_(None), failing_since=func.now())
    # Read anew: a neighbour may have got through meanwhile.
    since = await session.scalar(select(Endpoint.failing_since).where(key))
    failing = clock.now() - since if since is not None else timedelta(0)
    if last and failing >= timedelta(seconds=disable_after_s):
        await disable(session, *lane, Why.FAILING)
    elif failing >= timedelta(seconds=disable_after_s / 2) and await _change(
        session, key, Endpoint.warned_at.is_(None), warned_at=func.now()
    ):
        log.warning("endpoint_failing", endpoint_id=str(lane.endpoint_id), failing_s=round(failing.total_seconds()))


async def _change(session: AsyncSession, key: ColumnElement[bool], only_if: ColumnElement[bool], **values: Any) -> bool:
    changed = await session.execute(
        update(Endpoint).where(key, only_if).values(values).execution_options(synchronize_session=False)
    )
    return bool(changed.rowcount)  # type: ignore[attr-defined]


def disabling_at(endpoint: Endpoint, disable_after_s: float) -> datetime | None:
    """From when on a delivery that is given up disables *endpoint*; None while it works."""
    if endpoint.failing_since is None or endpoint.disabled_at is not None:
        return None
    return endpoint.failing_since + timedelta(seconds=disable_after_s)


def _dead(why: Why) -> dict[str, Any]:
    return {"status": DeliveryStatus.DEAD, "dead_why": why, **OVER}


def _endpoint(tenant_id: UUID, endpoint_id: UUID) -> ColumnElement[bool]:
    return and_(Endpoint.tenant_id == tenant_id, Endpoint.id == endpoint_id)


def _ours(parcel: Parcel) -> tuple[ColumnElement[bool], ...]:
    """The row, for as long as nobody took it after us."""
    same = and_(Delivery.tenant_id == parcel.tenant_id, Delivery.id == parcel.id)
    return same, Delivery.lease_token == parcel.lease_token, Delivery.due_at.is_not(None)
