"""Whether fal signed a webhook."""

import base64
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from app.fal import signature
from app.fal.signature import KeysUnavailable, Unsigned, Verifier

# Made from fal's description of the signed message, with a seed that is no secret.
SEED = bytes(range(32))
X = "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"
BODY = (
    b'{"request_id":"123e4567-e89b-12d3-a456-426614174000","gateway_request_id":"123e4567-e89b-12d3-a456-426614174000",'
    b'"status":"OK","payload":{"video":{"url":"https://v3b.fal.media/files/b/0a8d04e2/x.mp4"}}}'
)
HEADERS = {
    "x-fal-webhook-request-id": "123e4567-e89b-12d3-a456-426614174000",
    "x-fal-webhook-user-id": "user-42",
    "x-fal-webhook-timestamp": "1760000000",
    "x-fal-webhook-signature": (
        "d6fe43508e8a14755b08cd9b0fa774fed27dfb3201c382d3b58859c711eabb3b"
        "0d78be94b8d16c409ec3fe8777889d6a0471c4ce07a727fb9a70e7603fc24900"
    ),
}
SIGNED_AT = datetime.fromtimestamp(1760000000, UTC)


def jwk(x: str = X) -> dict[str, str]:
    return {"kty": "OKP", "crv": "Ed25519", "x": x}


class Published:
    """fal's key page, as it is now; counts how often it is asked for."""

    def __init__(self, *keys: dict[str, str]) -> None:
        self.keys: list[dict[str, str]] = list(keys)
        self.asked = 0
        self.down = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        return httpx.Response(503) if self.down else httpx.Response(200, json={"keys": self.keys})

    def verifier(self, **options: object) -> Verifier:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self))
        return Verifier(http, "https://rest.fal.ai/.well-known/jwks.json", **options)  # type: ignore[arg-type]


async def test_the_known_vector_fits():
    signed = await Published(jwk()).verifier().verify(HEADERS, BODY, SIGNED_AT)

    assert signed.request_id == "123e4567-e89b-12d3-a456-426614174000"


@pytest.mark.parametrize("x", [X, X + "="])
def test_a_key_is_read_with_and_without_padding(x):
    assert len(signature.parse_jwks({"keys": [jwk(x)]})) == 1


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"keys": None},
        {"keys": [None, {}, {"kty": "RSA"}, jwk("!"), jwk("AAAA"), {**jwk(), "crv": "X25519"}]},
    ],
)
def test_what_is_no_key_is_passed_over(document):
    assert signature.parse_jwks(document) == []


async def test_every_key_is_tried():
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    page = Published(jwk(base64.urlsafe_b64encode(other).decode()), jwk())

    await page.verifier().verify(HEADERS, BODY, SIGNED_AT)

    assert page.asked == 1


@pytest.mark.parametrize("name", sorted(HEADERS))
async def test_a_missing_header_is_refused(name):
    page = Published(jwk())

    with pytest.raises(Unsigned, match="missing header"):
        await page.verifier().verify({k: v for k, v in HEADERS.items() if k != name}, BODY, SIGNED_AT)

    assert page.asked == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-fal-webhook-request-id", "another"),
        ("x-fal-webhook-user-id", "user-43"),
        ("x-fal-webhook-timestamp", "1760000001"),
        ("x-fal-webhook-timestamp", "1e9"),
        ("x-fal-webhook-timestamp", "-1760000000"),
        ("x-fal-webhook-timestamp", "٣"),
        ("x-fal-webhook-timestamp", "9" * 400),
        ("x-fal-webhook-signature", "00" * 64),
        ("x-fal-webhook-signature", "zz" * 64),
        ("x-fal-webhook-signature", "ab"),
    ],
)
async def test_a_changed_header_is_refused(name, value):
    with pytest.raises(Unsigned):
        await Published(jwk()).verifier().verify({**HEADERS, name: value}, BODY, SIGNED_AT)


@given(st.binary(max_size=300).filter(lambda body: body != BODY))
async def test_no_other_body_fits(body):
    with pytest.raises(Unsigned):
        await Published(jwk()).verifier().verify(HEADERS, body, SIGNED_AT)


@pytest.mark.parametrize(("off_s", "taken"), [(-300, True), (300, True), (-301, False), (301, False), (3600, False)])
async def test_a_webhook_is_good_for_five_minutes_either_way(off_s, taken):
    verifier, now = Published(jwk()).verifier(), SIGNED_AT + timedelta(seconds=off_s)

    if taken:
        await verifier.verify(HEADERS, BODY, now)
    else:
        with pytest.raises(Unsigned, match="five minutes"):
            await verifier.verify(HEADERS, BODY, now)


async def test_a_new_key_is_fetched_when_none_fits():
    page = Published(jwk(base64.urlsafe_b64encode(bytes(31) + b"\x01").decode()))
    verifier = page.verifier(refetch_s=0)
    with pytest.raises(Unsigned):
        await verifier.verify(HEADERS, BODY, SIGNED_AT)

    page.keys = [jwk()]

    await verifier.verify(HEADERS, BODY, SIGNED_AT)


async def test_forgers_cannot_make_us_ask_for_keys():
    page = Published(jwk())
    verifier = page.verifier()

    for _ in range(20):
        with pytest.raises(Unsigned):
            await verifier.verify({**HEADERS, "x-fal-webhook-signature": "11" * 64}, BODY, SIGNED_AT)

    assert page.asked == 1


async def test_without_any_keys_nothing_is_said_about_a_signature():
    page = Published()
    page.down = True

    with pytest.raises(KeysUnavailable):
        await page.verifier().verify(HEADERS, BODY, SIGNED_AT)


async def test_a_key_page_that_is_down_costs_nothing_while_keys_are_known():
    page = Published(jwk())
    verifier = page.verifier(refetch_s=0)
    await verifier.verify(HEADERS, BODY, SIGNED_AT)
    page.down = True

    await verifier.verify(HEADERS, BODY, SIGNED_AT)


async def test_only_the_account_that_is_set_may_report():
    with pytest.raises(Unsigned, match="another fal user"):
        await Published(jwk()).verifier(user_id="user-1").verify(HEADERS, BODY, SIGNED_AT)
