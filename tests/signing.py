"""Signs webhooks as fal does, with a seed that is no secret, and by another library than the one that checks them."""

import hashlib
import json
import time
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY: Final = Ed25519PrivateKey.from_private_bytes(bytes(32))
JWKS: Final = {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"}]}


def signed(
    body: Any, *, request_id: str | None = None, at: float | None = None, key: Ed25519PrivateKey = KEY
) -> tuple[bytes, dict[str, str]]:
    """*body* as raw bytes, and the headers fal would send with it."""
    raw = body if isinstance(body, bytes) else json.dumps(body, sort_keys=True).encode()
    named = request_id or (body.get("request_id") if isinstance(body, dict) else None) or "req-1"
    timestamp = str(int(time.time() if at is None else at))
    message = "\n".join([named, "user-1", timestamp, hashlib.sha256(raw).hexdigest()]).encode()
    return raw, {
        "content-type": "application/json",
        "x-fal-webhook-request-id": named,
        "x-fal-webhook-user-id": "user-1",
        "x-fal-webhook-timestamp": timestamp,
        "x-fal-webhook-signature": key.sign(message).hex(),
    }
