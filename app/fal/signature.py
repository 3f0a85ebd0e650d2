"""
Who sent a webhook: fal's Ed25519 signature over the raw bytes, and the keys it is checked with.

The signed message is request id, user id, timestamp and the body's SHA-256 in hex, joined by single
newlines (fal's webhook documentation; the test vector in the tests was made from it).
"""

import asyncio
import base64
import binascii
import hashlib
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import httpx
import structlog
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

log = structlog.get_logger()

TOLERANCE_S: Final = 300
KEPT_S: Final = 24 * 3600
REFETCH_S: Final = 60.0
FETCH_S: Final = 5.0


class Unsigned(Exception):
    """The webhook doesn't prove that fal sent it; the text says what is wrong with it."""


class KeysUnavailable(Exception):
    """fal's keys can't be had right now, so nothing can be said about the signature."""


class Signed(NamedTuple):
    """What a webhook's headers claim."""

    request_id: str
    user_id: str
    timestamp: str
    signature: bytes


def claims(headers: Mapping[str, str]) -> Signed:
    """The four headers of a webhook. Raises Unsigned if one is missing or malformed."""
    names = ("request-id", "user-id", "timestamp", "signature")
    values = [headers.get(f"x-fal-webhook-{name}", "") for name in names]
    if missing := [f"X-Fal-Webhook-{name.title()}" for name, value in zip(names, values, strict=True) if not value]:
        raise Unsigned(f"missing header: {', '.join(missing)}")
    request_id, user_id, timestamp, signature = values
    if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
        raise Unsigned("malformed timestamp")
    try:
        raw = bytes.fromhex(signature)
    except ValueError:
        raise Unsigned("malformed signature") from None
    if len(raw) != 64:
        raise Unsigned("malformed signature")
    return Signed(request_id, user_id, timestamp, raw)


def message(signed: Signed, body: bytes) -> bytes:
    """The bytes that fal signed."""
    return "\n".join([signed.request_id, signed.user_id, signed.timestamp, hashlib.sha256(body).hexdigest()]).encode()


def fresh(signed: Signed, now: datetime) -> bool:
    """Whether the webhook was signed within five minutes of *now*, either way."""
    return abs(now.timestamp() - int(signed.timestamp)) <= TOLERANCE_S


def fits(signed: Signed, body: bytes, keys: Sequence[VerifyKey]) -> bool:
    """Whether any of *keys* made the signature."""
    signed_bytes = message(signed, body)
    for key in keys:
        try:
            key.verify(signed_bytes, signed.signature)
        except BadSignatureError:
            continue
        return True
    return False


def parse_jwks(document: Any) -> list[VerifyKey]:
    """Every Ed25519 key of a JWKS; what isn't one is passed over."""
    found = document.get("keys") if isinstance(document, dict) else None
    keys = []
    for key in found if isinstance(found, list) else []:
        match key:
            case {"kty": "OKP", "crv": "Ed25519", "x": str(x)}:
                try:
                    # JWK says unpadded; whether fal's are, nobody has seen.
                    raw = base64.urlsafe_b64decode(x.rstrip("=") + "=" * (-len(x.rstrip("=")) % 4))
                    keys.append(VerifyKey(raw))
                except (ValueError, binascii.Error):
                    log.warning("jwks_key_unreadable")
    return keys


class Verifier:
    """Checks webhooks against fal's published keys, kept for a day; *user_id* may name several, with commas."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        jwks_url: str,
        *,
        user_id: str | None = None,
        refetch_s: float = REFETCH_S,
    ) -> None:
        self._http = http
        self._url = jwks_url
        self._user_ids = frozenset(one.strip() for one in user_id.split(",")) if user_id else None
        self._refetch_s = refetch_s
        self._keys: list[VerifyKey] = []
        self._fetched_at = float("-inf")
        self._asked_at = float("-inf")
        self._one_fetch = asyncio.Lock()

    async def verify(self, headers: Mapping[str, str], body: bytes, now: datetime) -> Signed:
        """
        What the webhook claims, if fal signed it.

        Raises Unsigned, or KeysUnavailable when there are no keys of the last day to check it with.
        """
        signed = claims(headers)
        if not fresh(signed, now):
            raise Unsigned("timestamp is more than five minutes off")
        if self._user_ids is not None and signed.user_id not in self._user_ids:
            raise Unsigned("signed for another fal user")
        if self._stale():
            await self._fetch()
        if self._stale():
            raise KeysUnavailable
        known = self._keys
        if fits(signed, body, known):
            return signed
        # fal may have changed its keys since; asked at most once a minute, or forgers would make us ask for them.
        await self._fetch()
        if self._keys is not known and fits(signed, body, self._keys):
            return signed
        raise Unsigned("signature doesn't fit")

    def _stale(self) -> bool:
        return time.monotonic() - self._fetched_at > KEPT_S

    async def _fetch(self) -> None:
        before = self._asked_at
        async with self._one_fetch:
            if self._asked_at != before:
                return  # somebody asked while we waited: what they got is ours too
            # Without any keys every webhook waits for them, so those are asked for more eagerly.
            wait_s = min(1.0, self._refetch_s) if self._stale() else self._refetch_s
            if time.monotonic() - self._asked_at < wait_s:
                return
            try:
                answer = await self._http.get(self._url, timeout=FETCH_S)
                keys = parse_jwks(answer.raise_for_status().json())
            except (httpx.HTTPError, ValueError) as error:
                log.warning("jwks_unavailable", why=type(error).__name__)
                return
            finally:
                self._asked_at = time.monotonic()
            if keys:
                self._keys, self._fetched_at = keys, time.monotonic()
