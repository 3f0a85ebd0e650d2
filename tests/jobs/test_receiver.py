"""fal's webhook door: what is believed, what is refused, and what is kept."""

import asyncio
import json
import time
from base64 import urlsafe_b64encode
from decimal import Decimal

import httpx
import pytest
from sqlalchemy import select, update

from app.db import new_id
from app.jobs import tokens
from app.jobs.receiver import KEPT_BYTES, Allowance
from app.jobs.tables import Attempt, WebhookDelivery
from tests import factories as make
from tests.signing import OTHER_KEY, signed

PAID = [("hold", Decimal("2.10")), ("charge", Decimal("2.10"))]


def ok(request_id="req-1", **more):
    return {
        "request_id": request_id,
        "gateway_request_id": "g",
        "status": "OK",
        "payload": make.OUTPUT,
        "error": None,
        **more,
    }


async def post(api: httpx.AsyncClient, token: str, raw: bytes, headers: dict[str, str]) -> httpx.Response:
    return await api.post(f"/webhooks/fal/{token}", content=raw, headers=headers)


async def inbox(db) -> list[tuple[str, int]]:
    async with db.session() as session:
        rows = await session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id))
        return [(row.verdict, row.deliveries) for row in rows]


@pytest.fixture
async def caller(db):
    return await make.make_tenant(db)


@pytest.fixture
async def intent(db, caller):
    """A job whose submit is under way: nothing is known of fal's answer yet."""
    return await make.taken(db, caller)


async def test_a_report_settles_the_job_and_says_so(api, db, caller, intent):
    await make.submit(db, intent)

    answer = await post(api, intent.token, *signed(ok()))

    assert (answer.status_code, answer.json()) == (200, {"applied": "settled"})
    assert (await make.look(db, intent.job)).status == "succeeded"
    assert await make.entries_of(db, caller) == PAID
    assert await inbox(db) == [("settled", 1)]


async def test_the_raw_body_is_kept(api, db, intent):
    raw, headers = signed(json.dumps(ok(), indent=3).encode(), request_id="req-1")

    await post(api, intent.token, raw, headers)

    async with db.session() as session:
        kept = (await session.scalars(select(WebhookDelivery))).one()
    assert (kept.body, kept.request_id, kept.attempt_id) == (raw, "req-1", intent.attempt.id)
    assert "x-fal-webhook-signature" not in kept.headers


async def test_what_is_kept_is_found_beside_what_came_at_that_time(api, db, intent):
    for body, headers in (signed(ok()), signed(ok()), (b"forged", {})):
        await post(api, intent.token, body, headers)

    async with db.session() as session:
        kept = (await session.scalars(select(WebhookDelivery.digest))).all()
    assert len(set(kept)) == 3
    assert {digest[:8] for digest in kept} == {intent.attempt.id.bytes[:8]}


async def test_a_report_that_overtakes_the_submit_answer_settles_the_job(api, db, caller, intent):
    answer = await post(api, intent.token, *signed(ok()))
    await make.submit(db, intent)

    assert answer.status_code == 200
    assert (await make.look(db, intent.job)).status == "succeeded"
    assert await make.entries_of(db, caller) == PAID


async def test_fifty_deliveries_at_once_charge_once(api, db, caller, intent):
    await make.submit(db, intent)
    raw, headers = signed(ok())

    answers = await asyncio.gather(*(post(api, intent.token, raw, headers) for _ in range(50)))

    assert {answer.status_code for answer in answers} == {200}
    assert sorted(answer.json()["applied"] for answer in answers) == ["already_ended"] * 49 + ["settled"]
    assert await make.entries_of(db, caller) == PAID
    assert sorted(await inbox(db)) == [("already_ended", 49), ("settled", 1)]


async def test_a_report_on_a_finished_job_changes_nothing(api, db, caller, intent):
    await make.submit(db, intent)
    await make.report(db, intent, make.failure())

    answer = await post(api, intent.token, *signed(ok()))

    assert (answer.status_code, answer.json()) == (200, {"applied": "already_ended"})
    assert (await make.look(db, intent.job)).status == "failed"
    assert [kind for kind, _ in await make.entries_of(db, caller)] == ["hold", "release"]


@pytest.mark.parametrize(
    "forge",
    [
        lambda raw, headers: (raw + b" ", headers),
        lambda raw, headers: (raw.replace(b"OK", b"KO"), headers),
        lambda raw, headers: (raw, {**headers, "x-fal-webhook-user-id": "user-2"}),
        lambda raw, headers: (raw, {**headers, "x-fal-webhook-signature": "0" * 128}),
        lambda raw, headers: (raw, {k: v for k, v in headers.items() if not k.endswith("signature")}),
        lambda raw, headers: (raw, {k: v for k, v in headers.items() if not k.endswith("timestamp")}),
        lambda raw, headers: (raw, {k: v for k, v in headers.items() if not k.endswith("user-id")}),
        lambda raw, headers: (raw, {k: v for k, v in headers.items() if not k.endswith("request-id")}),
        lambda raw, headers: (raw, {}),
        lambda *_: signed(ok(), key=OTHER_KEY),
        lambda *_: signed(ok(), at=time.time() - 301),
        lambda *_: signed(ok(), at=time.time() + 330),
        lambda *_: (b"", {}),
    ],
)
async def test_what_fal_did_not_sign_changes_nothing_and_is_kept(api, db, caller, intent, forge):
    await make.submit(db, intent)
    before = await make.look(db, intent.job)

    answer = await post(api, intent.token, *forge(*signed(ok())))

    assert (answer.status_code, answer.json()["code"]) == (401, "webhook_unsigned")
    after = await make.look(db, intent.job)
    assert (after.status, after.event_count) == ("submitted", before.event_count)
    assert await make.entries_of(db, caller) == PAID[:1]
    assert await inbox(db) == [("unsigned", 1)]


async def test_an_unknown_address_is_refused_and_kept(api, db, intent):
    # Another's, of an attempt that isn't there, and of one that is, which doesn't know it.
    stranger = tokens.new_token(intent.job.tenant_id, new_id())
    forged = tokens.new_token(*make.key_of(intent))

    for token in (stranger, forged, "nonsense"):
        answer = await post(api, token, *signed(ok()))
        assert (answer.status_code, answer.json()["code"]) == (404, "webhook_unknown")

    assert (await make.look(db, intent.job)).status == "submitting"
    assert await inbox(db) == [("unknown", 1)] * 3


async def test_an_address_from_before_attempts_were_named_in_it_still_counts(api, db, intent):
    old = urlsafe_b64encode(intent.job.tenant_id.bytes + b"s" * 32).decode()
    async with db.session() as session:
        await session.execute(update(Attempt).values(token_digest=tokens.token_digest(old)))

    answer = await post(api, old, *signed(ok()))

    assert (answer.status_code, answer.json()) == (200, {"applied": "settled"})
    assert (await make.look(db, intent.job)).status == "succeeded"


async def test_a_genuine_report_on_another_request_is_refused(api, db, intent):
    await make.submit(db, intent, "req-1")

    answer = await post(api, intent.token, *signed(ok("req-2")))

    assert (answer.status_code, answer.json()["code"]) == (409, "webhook_mismatch")
    assert (await make.look(db, intent.job)).status == "submitted"
    assert await inbox(db) == [("other_request", 1)]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"request_id": "req-1"}', b"[" * 100_000, b'{"status": "OK"}'])
async def test_signed_nonsense_is_refused(api, db, intent, body):
    answer = await post(api, intent.token, *signed(body, request_id="req-1"))

    assert (answer.status_code, answer.json()["code"]) == (422, "webhook_malformed")
    assert (await make.look(db, intent.job)).status == "submitting"


async def test_a_body_about_another_request_than_the_signed_one_is_refused(api, db, intent):
    answer = await post(api, intent.token, *signed(ok("req-1"), request_id="req-9"))

    assert answer.status_code == 422


@pytest.mark.parametrize("announced", [True, False])
async def test_ten_megabytes_are_refused_unread(api, db, intent, announced):
    taken = 0

    async def body():
        nonlocal taken
        for _ in range(160):
            taken += 65_536
            yield b"x" * 65_536

    headers = {"content-length": str(160 * 65_536)} if announced else {}
    answer = await api.post(f"/webhooks/fal/{intent.token}", content=body(), headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert await inbox(db) == []


async def test_of_a_refused_body_only_the_beginning_is_kept(api, db, intent):
    await post(api, intent.token, b"x" * 900_000, {})

    async with db.session() as session:
        kept = (await session.scalars(select(WebhookDelivery))).one()
    assert (len(kept.body), kept.body_size) == (KEPT_BYTES, 900_000)


async def test_the_same_forgery_again_takes_no_more_room(api, db, intent):
    for _ in range(5):
        await post(api, intent.token, b"forged", {})

    assert await inbox(db) == [("unsigned", 5)]


def test_only_so_many_refusals_a_minute_are_kept():
    allowance = Allowance(per_minute=3)

    assert [allowance.one_more() for _ in range(5)] == [True, True, True, False, False]


async def test_a_report_on_a_request_of_another_job_is_refused(api, db, caller, intent):
    await make.submit(db, intent, "req-1")
    other = await make.taken(db, caller)

    answer = await post(api, other.token, *signed(ok("req-1")))

    assert (answer.status_code, answer.json()["code"]) == (409, "webhook_mismatch")
    assert (await make.look(db, other.job)).status == "submitting"


async def test_an_output_that_postgres_cannot_keep_settles_the_job_all_the_same(api, db, intent):
    await make.submit(db, intent)
    raw = json.dumps(ok(payload={"video": {"url": "https://x", "note": "a\x00b\ud800"}, "n": float("nan")})).encode()

    answer = await post(api, intent.token, *signed(raw, request_id="req-1"))

    job = await make.look(db, intent.job)
    assert (answer.status_code, job.status) == (200, "succeeded")
    assert job.output == {"video": {"url": "https://x", "note": "ab"}, "n": None}


async def test_a_success_that_could_not_be_written_down_is_read_from_the_result(api, db, intent):
    await make.submit(db, intent)

    answer = await post(api, intent.token, *signed(ok(payload=None, payload_error="not serialisable")))

    assert (answer.status_code, answer.json()) == (200, {"applied": "to_be_read"})
    assert (await make.look(db, intent.job)).status == "submitted"


@pytest.mark.parametrize(
    ("error", "status"),
    [("Invalid status code: 422", "failed"), ("Invalid status code: 499", "canceled"), ("anything", "failed")],
)
async def test_an_error_report_ends_the_job_and_gives_everything_back(api, db, caller, intent, error, status):
    await make.submit(db, intent)
    body = {"request_id": "req-1", "status": "ERROR", "error": error, "payload": {"detail": "no"}}

    answer = await post(api, intent.token, *signed(body))

    assert answer.status_code == 200
    assert (await make.look(db, intent.job)).status == status
    assert await make.balances(db, caller) == (Decimal(0), Decimal(0), Decimal(0))
