"""The other direction: Callsheet calls, and whoever is called makes sure that it is Callsheet (pure)."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from app.client import results
from app.client.errors import CallsheetError
from app.client.results import Job

TOLERANCE_S: Final = 300.0
PREFIX: Final = "whsec_"


class InvalidCallback(CallsheetError):
    """This isn't a callback of Callsheet's for you, or not of now; answer 401 and do nothing."""


@dataclass(frozen=True, slots=True)
class Callback:
    """What Callsheet tells: which *type* of thing happened *at* which time."""

    id: str
    """The same when it is told again: do nothing the second time."""
    type: str
    at: datetime
    job: Job | None
    """As it was then; None in an `endpoint.test`."""
    sequence: int | None
    """Grows with each event of a job: of two, the higher is the later."""
    raw: dict[str, Any]


def verify_callback(
    body: bytes,
    headers: Mapping[str, str],
    secrets: str | Sequence[str],
    *,
    tolerance_s: float = TOLERANCE_S,
    now: float | None = None,
) -> Callback:
    """
    The callback that came as *body*, byte by byte, with *headers*. Raises InvalidCallback unless it is genuine.

    *secrets* are those of the endpoint, or of `GET /v1/callback-secret`: while one is being replaced, give both. Its
    time may be *tolerance_s* seconds away from ours, so that what someone recorded can't be sent again later.
    """
    given = {name.lower(): value for name, value in headers.items()}
    webhook_id, timestamp = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    if not webhook_id or not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 12:
        raise InvalidCallback("It has no webhook-id or no webhook-timestamp.")
    if abs((time.time() if now is None else now) - int(timestamp)) > tolerance_s:
        raise InvalidCallback("Its time is too far from ours.")
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    expected = [_signature(secret, signed) for secret in ([secrets] if isinstance(secrets, str) else secrets)]
    brought = [each[3:] for each in given.get("webhook-signature", "").split(" ") if each.startswith("v1,")]
    # All are compared, so that how long it takes tells nothing.
    if not any([hmac.compare_digest(own, other.encode()) for own in expected for other in brought]):  # noqa: C419
        raise InvalidCallback("No signature matches.")
    return _read(webhook_id, body)


def _signature(secret: str, signed: bytes) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError(f"A secret begins with {PREFIX}, and the rest of it is base64.")
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256))


def _read(webhook_id: str, body: bytes) -> Callback:
    told: dict[str, Any] = json.loads(body)
    data = told["data"]
    return Callback(
        id=webhook_id,
        type=told["type"],
        at=datetime.fromisoformat(told["timestamp"]),
        job=results.job(data["job"]) if "job" in data else None,
        sequence=data.get("sequence"),
        raw=told,
    )
