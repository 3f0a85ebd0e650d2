"""
fal tells us: POST /webhooks/fal/{token}.

The signature is checked over the raw bytes before anything else is believed. Whatever comes in is kept
in the inbox with its verdict; a genuine report is applied in the same transaction, and 200 leaves only
after the commit, so that fal delivers again whatever we could not keep.
"""

import hashlib
import time
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Final
from uuid import UUID

import structlog
from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app import clock, wakeup
from app.db import Database, new_id
from app.errors import AppError, BodyTooLarge, Unavailable, problems
from app.fal.messages import Report, Unreadable, read, webhook
from app.fal.signature import KeysUnavailable, Unsigned, Verifier
from app.jobs import lifecycle, queries, settling, tokens
from app.jobs.lifecycle import Applied, AttemptKey
from app.jobs.tables import Attempt, WebhookDelivery
from app.media.measure import Measure, Unmeasured

log = structlog.get_logger()
router = APIRouter(tags=["Webhooks from fal"])

KEPT_BYTES: Final = 16_384
"""How much of a refused body is kept: enough to see what it was, too little to fill a disk with."""
LONGEST_TOKEN: Final = 200
SETTLED_BYTES: Final = 262_144
"""How large a body may be that is settled together with others."""
KEPT_HEADERS: Final = ("content-type", "user-agent", "x-fal-webhook-request-id", "x-fal-webhook-user-id")


class WebhookUnsigned(AppError):
    """The webhook doesn't prove that fal sent it."""

    status, code = 401, "webhook_unsigned"


class WebhookUnknown(AppError):
    """No attempt of ours has this webhook address."""

    status, code = 404, "webhook_unknown"


class WebhookMismatch(AppError):
    """The webhook is genuine, but about another request than the one this address was made for."""

    status, code = 409, "webhook_mismatch"


class WebhookMalformed(AppError):
    """The webhook is genuine, but isn't a report this service understands."""

    status, code = 422, "webhook_malformed"


class Heard(BaseModel):
    """What a webhook changed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"applied": "settled"}]})

    applied: str = Field(description="`settled`, `already_ended` or `to_be_read`")


class Verdict(StrEnum):
    """What a webhook is, before anything it says is believed."""

    GENUINE = "genuine"
    UNSIGNED = "unsigned"
    UNKNOWN = "unknown"
    MALFORMED = "malformed"


REFUSALS: Final[dict[Verdict, type[AppError]]] = {
    Verdict.UNSIGNED: WebhookUnsigned,
    Verdict.UNKNOWN: WebhookUnknown,
    Verdict.MALFORMED: WebhookMalformed,
}
KEPT_PER_MINUTE: Final = 600


class Allowance:
    """So many a minute: forgers can't fill the inbox with refused webhooks faster than this."""

    def __init__(self, per_minute: int = KEPT_PER_MINUTE) -> None:
        self._per_minute = per_minute
        self._left = float(per_minute)
        self._at = time.monotonic()

    def one_more(self) -> bool:
        """Whether one more may be kept now."""
        now = time.monotonic()
        self._left = min(self._per_minute, self._left + (now - self._at) * self._per_minute / 60)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


@router.post(
    "/webhooks/fal/{token}",
    operation_id="receive_fal_webhook",
    summary="Take a report from fal",
    responses=problems(WebhookUnsigned, WebhookUnknown, WebhookMismatch, BodyTooLarge, WebhookMalformed, Unavailable),
)
async def receive(
    request: Request, token: Annotated[str, Path(description="The attempt's own token", max_length=LONGEST_TOKEN)]
) -> Heard:
    """
    fal delivers a request's outcome here, signed with Ed25519 over the raw body.

    Delivering it again is safe: the first delivery settles the job, later ones change nothing.
    """
    return Heard(applied=await hear(request, token))


async def hear(request: Request, token: str) -> Applied:
    """What the webhook *request* to *token* changed. Raises what `receive` answers."""
    state = request.app.state
    body = await request.body()
    verdict, why, report = await _judge(state.verifier, request, body)
    applied = None
    if isinstance(report, Report):
        applied = await _settled_with_others(request, token, body, report)
    if applied is None:
        applied = await _hear_alone(request, token, body, verdict, why, report)
    if applied is Applied.OTHER_REQUEST:
        raise WebhookMismatch
    if applied is Applied.SETTLED:
        # The result is there to be copied and told of, and another job may go.
        state.announcer.announce(wakeup.RESCUER, wakeup.SENDER, wakeup.ROOM)
    elif applied is Applied.TO_BE_READ:
        state.announcer.announce(wakeup.RECONCILER, wakeup.SENDER)
    return applied


async def _settled_with_others(request: Request, token: str, body: bytes, report: Report) -> Applied | None:
    """SETTLED, or None if the report has to be looked at more closely."""
    key = tokens.key_of(token)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return None
    if key is None or key[1] is None or len(body) > SETTLED_BYTES:
        return None
    token_digest = tokens.token_digest(token)
    job = await request.app.state.settling(
        settling.Heard(
            AttemptKey(key[0], key[1]),
            token_digest,
            report,
            headers=_kept_headers(request),
            body=text,
            body_size=len(body),
            digest=_digest(key[1], token_digest, body, Applied.SETTLED),
        )
    )
    if job is None:
        return None
    # Whoever follows it here waits for no look into the database, nor for fal to be answered.
    await request.app.state.hub.ended(job)
    log.info("job_reported", job_id=str(job.id), applied=Applied.SETTLED, by="webhook")
    return Applied.SETTLED


async def _hear_alone(
    request: Request, token: str, body: bytes, verdict: Verdict, why: str | None, report: Report | Unreadable | None
) -> Applied:
    """Like `hear`, with transactions for this webhook alone."""
    state = request.app.state
    db: Database = state.db
    attempt = await db.run(lambda session: queries.attempt_by_token(session, token))
    if verdict is Verdict.GENUINE and attempt is None:
        verdict = Verdict.UNKNOWN
    delivery = _delivery(request, token, body, attempt)

    if verdict is not Verdict.GENUINE or report is None or attempt is None:
        if state.refusals_kept.one_more():
            await db.run(lambda session: _keep(session, verdict, delivery))
        log.warning("webhook_refused", verdict=verdict, why=why)
        raise REFUSALS[verdict](why)

    key = AttemptKey(attempt.tenant_id, attempt.id)
    try:
        seconds = await _measured_s(db, state.measure, attempt, report)
    except Unmeasured:
        # The reconciler reads the result again, and the file with it, until both can be read.
        report, seconds = Unreadable(report.request_id), None

    async def apply(session: AsyncSession) -> Applied:
        if isinstance(report, Unreadable):
            applied = await lifecycle.to_be_read(session, key, report.request_id)
        else:
            applied = await lifecycle.reported(session, key, report, seconds)
        await _keep(session, applied, {**delivery, "request_id": report.request_id})
        return applied

    applied = await db.run(apply)
    log.info("job_reported", job_id=str(attempt.job_id), applied=applied, by="webhook")
    return applied


async def _judge(
    verifier: Verifier, request: Request, body: bytes
) -> tuple[Verdict, str | None, Report | Unreadable | None]:
    try:
        signed = await verifier.verify(request.headers, body, clock.now())
    except KeysUnavailable:
        raise Unavailable("fal's signing keys can't be had right now.", headers={"Retry-After": "5"}) from None
    except Unsigned as error:
        return Verdict.UNSIGNED, str(error), None
    report = webhook(read(body))
    if report is None or report.request_id != signed.request_id:
        return Verdict.MALFORMED, "The body is not a report on the request that was signed.", None
    return Verdict.GENUINE, None, report


async def _measured_s(db: Database, measure: Measure, attempt: Attempt, report: Report | Unreadable) -> Decimal | None:
    """The length of the delivered video, for the few models whose price depends on it."""
    if isinstance(report, Unreadable) or report.output is None:
        return None
    job = await db.run(lambda session: queries.get(session, attempt.tenant_id, attempt.job_id))
    return await measure.seconds(report.output) if job is not None and job.measured else None


def _kept_headers(request: Request) -> dict[str, str]:
    return {name: request.headers[name][:200] for name in KEPT_HEADERS if name in request.headers}


def _digest(attempt_id: UUID | None, token_digest: bytes, body: bytes, verdict: Verdict | Applied) -> bytes:
    """
    What only a repeat has in common; it begins as the attempt's id does, if it is known.

    So those of one time are neighbours in their index, which then grows where it was just written, however large it is.
    """
    digest = hashlib.sha256(token_digest + body + verdict.encode()).digest()
    return digest if attempt_id is None else attempt_id.bytes[:8] + digest[8:]


def _delivery(request: Request, token: str, body: bytes, attempt: Attempt | None) -> dict[str, Any]:
    return {
        "headers": _kept_headers(request),
        "body": body,
        "digest": tokens.token_digest(token),
        "tenant_id": attempt and attempt.tenant_id,
        "attempt_id": attempt and attempt.id,
    }


async def _keep(session: AsyncSession, verdict: Verdict | Applied, delivery: dict[str, Any]) -> None:
    body = delivery["body"]
    await session.execute(
        insert(WebhookDelivery)
        .values(
            {
                **delivery,
                "id": new_id(),
                "digest": _digest(delivery["attempt_id"], delivery["digest"], body, verdict),
                "verdict": verdict,
                "body": body[:KEPT_BYTES] if isinstance(verdict, Verdict) else body,
                "body_size": len(body),
            }
        )
        .on_conflict_do_update(
            index_elements=[WebhookDelivery.digest],
            set_={"deliveries": WebhookDelivery.deliveries + 1, "last_received_at": func.now()},
        )
    )
