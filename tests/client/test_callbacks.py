"""verify_callback against the standard's own library and our own signer."""

import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from app.callbacks import signing
from app.callbacks.events import EventType, body_of
from app.client import InvalidCallback, verify_callback
from app.jobs.callback_examples import EXAMPLES

NOW = datetime.now(UTC).replace(microsecond=0)
SECRET = signing.new_secret()
OTHER = signing.new_secret()
EXAMPLE = EXAMPLES[EventType.SUCCEEDED]
BODY = json.dumps(EXAMPLE)


def signed(*secrets, body=BODY, at=NOW):
    return signing.headers(uuid4(), at, body, secrets or [SECRET])


def verified(headers, secrets=None, body=BODY, now=NOW, **options):
    return verify_callback(
        body.encode(), headers, signing.shown(SECRET) if secrets is None else secrets, now=now.timestamp(), **options
    )


def test_our_own_callback_is_read():
    headers = signed()

    callback = verified(headers)

    assert (callback.id, callback.type, callback.sequence) == (headers["webhook-id"], "job.succeeded", 5)
    assert callback.job.id == EXAMPLE["data"]["job"]["id"]
    assert callback.at == datetime.fromisoformat(EXAMPLE["timestamp"])
    assert callback.raw == EXAMPLE


def test_the_test_of_an_endpoint_has_no_job():
    body = body_of("endpoint.test", "2026-11-22T14:31:40Z", "{}")

    callback = verified(signed(body=body), body=body)

    assert (callback.type, callback.job, callback.sequence) == ("endpoint.test", None, None)


@given(st.binary(min_size=1, max_size=64), st.text(max_size=50), st.uuids())
def test_whatever_the_standards_library_signs_is_verified_and_the_other_way_round(secret, text, webhook_id):
    body = body_of("endpoint.test", "2026-11-22T14:31:40Z", json.dumps({"text": text}))
    # The library goes by the clock, and this may run long after it was collected.
    now = datetime.now(UTC)
    headers = {
        "webhook-id": str(webhook_id),
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(str(webhook_id), now, body),
    }

    callback = verified(headers, signing.shown(secret), body=body, now=now)

    assert callback.raw == Webhook(secret).verify(body, headers)


@pytest.mark.parametrize("secrets", [[SECRET], [OTHER], [OTHER, SECRET]])
def test_while_a_secret_is_replaced_either_will_do(secrets):
    verified(signed(SECRET, OTHER), [signing.shown(each) for each in secrets])
    verified(signed(*secrets), [signing.shown(SECRET), signing.shown(OTHER)])


def test_names_of_headers_and_what_else_comes_do_not_matter():
    headers = {name.title(): value for name, value in signed().items()}
    headers["Webhook-Signature"] = f"v1a,xyz v1, v1,AAAA {headers['Webhook-Signature']} v2,é"

    verified(headers)


def altered(name, value):
    return {**signed(), name: value}


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, BODY),
        (signed(OTHER), BODY),
        (signed(), BODY + " "),
        (signed(), BODY.replace("succeeded", "failed")),
        (altered("webhook-id", "other"), BODY),
        (altered("webhook-id", ""), BODY),
        (altered("webhook-timestamp", str(int(NOW.timestamp()) + 1)), BODY),
        (altered("webhook-timestamp", "-1"), BODY),
        (altered("webhook-timestamp", "soon"), BODY),
        (altered("webhook-timestamp", "²"), BODY),
        (altered("webhook-timestamp", "9" * 400), BODY),
        (altered("webhook-signature", ""), BODY),
        (altered("webhook-signature", "v1,"), BODY),
        (altered("webhook-signature", "v1,é"), BODY),
        (altered("webhook-signature", signed()["webhook-signature"].replace("v1,", "v2,")), BODY),
        (signed(at=NOW - timedelta(seconds=301)), BODY),
        (signed(at=NOW + timedelta(seconds=301)), BODY),
    ],
)
def test_what_is_forged_altered_or_not_of_now_is_refused(headers, body):
    with pytest.raises(InvalidCallback):
        verified(headers, body=body)


@pytest.mark.parametrize("away", [-300, 300])
def test_clocks_may_differ_by_five_minutes(away):
    verified(signed(at=NOW + timedelta(seconds=away)))
    with pytest.raises(InvalidCallback):
        verified(signed(at=NOW + timedelta(seconds=away)), tolerance_s=299)


@pytest.mark.parametrize("secrets", [[], ()])
def test_without_a_secret_nothing_is_genuine(secrets):
    with pytest.raises(InvalidCallback):
        verified(signed(), secrets)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_ä", "not base64!"])
def test_a_secret_that_is_none_is_a_mistake_of_the_caller(secret):
    with pytest.raises(ValueError, match="whsec_"):
        verified(signed(), secret)
