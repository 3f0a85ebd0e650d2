"""How a webhook is signed: Ed25519 over request id, user id, time and the body's hash."""

import hashlib
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Final

from nacl.signing import SigningKey

SEED_BYTES: Final = 32


def message(*, request_id: str, user_id: str, timestamp: str, body: bytes) -> bytes:
    """The bytes that are signed."""
    return "\n".join((request_id, user_id, timestamp, hashlib.sha256(body).hexdigest())).encode()


def headers(key: SigningKey, *, request_id: str, user_id: str, timestamp: str, body: bytes) -> dict[str, str]:
    """The four headers by which a receiver knows that *body* comes from fal."""
    signed = key.sign(message(request_id=request_id, user_id=user_id, timestamp=timestamp, body=body)).signature
    return {
        "X-Fal-Webhook-Request-Id": request_id,
        "X-Fal-Webhook-User-Id": user_id,
        "X-Fal-Webhook-Timestamp": timestamp,
        "X-Fal-Webhook-Signature": signed.hex(),
    }


def jwks(keys: list[SigningKey]) -> dict[str, list[dict[str, str]]]:
    """The public halves of *keys*, as fal publishes them."""
    return {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": _public(key)} for key in keys]}


def _public(key: SigningKey) -> str:
    return urlsafe_b64encode(bytes(key.verify_key)).rstrip(b"=").decode()


class Keys:
    """The signing keys, newest last; with a *folder* they outlive the process."""

    def __init__(self, folder: Path | None, seed: bytes | None) -> None:
        self._file = folder / "signing.key" if folder is not None and seed is None else None
        stored = self._file.read_bytes() if self._file is not None and self._file.exists() else seed
        if stored:
            starts = range(0, len(stored), SEED_BYTES)
            self._all = [SigningKey(stored[at : at + SEED_BYTES]) for at in starts]
        else:
            self._all = [SigningKey.generate()]
            self._save()
        self.stranger = SigningKey.generate()
        """Signs as nobody in the JWKS does."""

    @property
    def current(self) -> SigningKey:
        return self._all[-1]

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        return jwks(self._all)

    def rotate(self) -> None:
        """Sign with a new key from now on. The old one stays published, beside it."""
        self._all.append(SigningKey.generate())
        self._save()

    def _save(self) -> None:
        if self._file is not None:
            part = self._file.with_suffix(".part")
            part.write_bytes(b"".join(map(bytes, self._all)))
            part.chmod(0o600)
            part.replace(self._file)
