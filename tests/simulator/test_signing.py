"""The signature of webhooks."""

import json
from base64 import urlsafe_b64decode
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from nacl.signing import SigningKey

from app.simulator import signing
from app.simulator.signing import Keys

REQUEST = "123e4567-e89b-12d3-a456-426614174000"
BODY = (
    f'{{"request_id":"{REQUEST}","gateway_request_id":"{REQUEST}","status":"OK",'
    '"payload":{"video":{"url":"https://v3b.fal.media/files/b/0a8d04e2/x.mp4"}}}'
).encode()


def test_contract_vector():
    key = SigningKey(bytes(range(32)))

    headers = signing.headers(key, request_id=REQUEST, user_id="user-42", timestamp="1760000000", body=BODY)

    assert signing.jwks([key])["keys"][0]["x"] == "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"
    assert headers == {
        "X-Fal-Webhook-Request-Id": REQUEST,
        "X-Fal-Webhook-User-Id": "user-42",
        "X-Fal-Webhook-Timestamp": "1760000000",
        "X-Fal-Webhook-Signature": "d6fe43508e8a14755b08cd9b0fa774fed27dfb3201c382d3b58859c711eabb3b"
        "0d78be94b8d16c409ec3fe8777889d6a0471c4ce07a727fb9a70e7603fc24900",
    }


def test_message_joins_four_parts_by_single_newlines():
    said = signing.message(request_id="r", user_id="u", timestamp="1", body=b"")

    assert said == b"r\nu\n1\ne3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_keys_outlive_the_process_and_rotation_keeps_the_old_ones(tmp_path: Path):
    keys = Keys(tmp_path, None)
    keys.rotate()

    again = Keys(tmp_path, None)

    assert again.jwks() == keys.jwks()
    assert len(again.jwks()["keys"]) == 2
    assert again.current == keys.current
    assert (tmp_path / "signing.key").stat().st_mode & 0o077 == 0


def test_stranger_is_not_in_the_jwks():
    keys = Keys(None, None)
    signed = keys.stranger.sign(b"x").signature

    for key in json.loads(json.dumps(keys.jwks()))["keys"]:
        public = Ed25519PublicKey.from_public_bytes(urlsafe_b64decode(key["x"] + "="))
        with pytest.raises(InvalidSignature):
            public.verify(signed, b"x")
