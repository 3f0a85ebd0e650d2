"""What callers are told, how often, and by whom."""

import json
import time
from base64 import urlsafe_b64decode
from typing import Any

import httpx
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app.simulator import signing
from tests.simulator.conftest import HOOK, Box, OpenBox


async def valid(box: Box, heard: tuple[dict[str, str], bytes]) -> bool:
    """Whether a receiver that goes by fal's rules takes this webhook for true."""
    headers, body = heard
    names = ("request-id", "user-id", "timestamp", "signature")
    request_id, user_id, timestamp, signature = (headers.get(f"x-fal-webhook-{name}") for name in names)
    if not (request_id and user_id and timestamp and signature) or abs(int(timestamp) - time.time()) > 300:
        return False
    said = signing.message(request_id=request_id, user_id=user_id, timestamp=timestamp, body=body)
    for key in (await box.client.get("/rest/.well-known/jwks.json")).json()["keys"]:
        try:
            Ed25519PublicKey.from_public_bytes(urlsafe_b64decode(key["x"] + "=")).verify(bytes.fromhex(signature), said)
        except InvalidSignature:
            continue
        return bool(json.loads(body)["request_id"] == request_id)
    return False


async def test_success_is_told_in_fals_own_spelling(box: Box):
    request_id = await box.submit()
    await box.told(request_id)

    headers, body = box.hook.heard[0]
    video = json.dumps((await box.result(request_id)).json(), sort_keys=True)
    assert len(box.hook.heard) == 1
    assert headers["content-type"] == "application/json"
    assert headers["x-fal-webhook-request-id"] == request_id
    assert len(headers["x-fal-webhook-signature"]) == 128
    assert body.decode() == (
        f'{{"error": null, "gateway_request_id": "{request_id}", "payload": {video},'
        f' "request_id": "{request_id}", "status": "OK"}}'
    )
    assert await valid(box, box.hook.heard[0])


async def test_failure_is_told_with_the_models_own_body(box: Box):
    request_id = await box.submit(script={"outcome": "policy"})
    await box.told(request_id)

    said = box.hook.said[0]
    assert (said["status"], said["error"]) == ("ERROR", "Invalid status code: 422")
    assert said["payload"]["detail"][0]["type"] == "content_policy_violation"
    assert said["payload"] == (await box.result(request_id)).json()


async def test_output_that_cannot_be_made_json_is_ok_with_a_payload_error(box: Box):
    await box.told(await box.submit(script={"outcome": "not_serialisable"}))

    said = box.hook.said[0]
    assert (said["status"], said["payload"]) == ("OK", None)
    assert said["payload_error"]


async def test_nobody_is_told_without_a_webhook_url(box: Box):
    await box.told(await box.submit(hook=None))

    assert box.hook.heard == []


@pytest.mark.parametrize(
    ("form", "true"),
    [
        ("ok", True),
        ("forged", False),
        ("unknown_key", False),
        ("old", False),
        ("future", False),
        ("unsigned", False),
        ("tampered", False),
        ("foreign", False),
    ],
)
async def test_each_false_form_is_false_and_sent_once(box: Box, form: str, true: bool):
    box.hook.codes = [200 if true else 401]

    await box.told(await box.submit(script={"webhook": form}))

    assert [await valid(box, one) for one in box.hook.heard] == [true]


@pytest.mark.parametrize(
    ("plan", "heard"), [("never", 0), ("twice", 2), ("ok*5", 5), ("forged+ok", 2), (["old", "ok", "ok"], 3)]
)
async def test_script_plans_the_deliveries(box: Box, plan: Any, heard: int):
    await box.told(await box.submit(script={"webhook": plan}))

    assert len(box.hook.heard) == heard


async def test_late_webhook_comes_after_the_result_could_be_read(slow_box: Box):
    request_id = await slow_box.submit(script={"webhook": "late", "webhook_s": 30, "queue_s": 0, "run_s": 0})
    await slow_box.ended(request_id)
    await slow_box.settle()

    before = list(slow_box.hook.heard)
    await slow_box.advance(31)
    await slow_box.told(request_id)

    assert before == []
    assert len(slow_box.hook.heard) == 1


async def test_early_webhook_comes_before_the_submit_is_answered(open_box: OpenBox):
    box = await open_box(queue_s=60, run_s=60)

    answer = await box.post(script={"webhook": "early"})

    assert box.hook.said[0]["request_id"] == answer.json()["request_id"]


async def test_refused_webhook_is_repeated_with_backoff_and_signed_anew(open_box: OpenBox):
    box = await open_box(webhook_retry_s=(2, 4, 8))
    box.simulator.clock.set(stopped=True)
    box.hook.codes = [500, 503, 200]
    request_id = await box.submit()

    for attempts, wait_s in enumerate((2, 4), 1):
        await box.until(request_id, lambda request, n=attempts: len(request.deliveries) == n)  # type: ignore[misc]
        await box.settle()
        await box.advance(wait_s)
    request = await box.told(request_id)

    assert [one.code for one in request.deliveries] == [500, 503, 200]
    assert [round(one.at - request.deliveries[0].at) for one in request.deliveries] == [0, 2, 6]
    assert all([await valid(box, one) for one in box.hook.heard])


async def test_giving_up_leaves_the_request_untouched(open_box: OpenBox):
    box = await open_box(webhook_retry_s=(0.001, 0.001))
    box.hook.codes = [500]

    request = await box.told(await box.submit())

    assert [one.code for one in request.deliveries] == [500] * 3
    assert request.result is not None
    assert request.result.code == 200


async def test_redirect_is_final(box: Box):
    box.hook.codes = [302]

    request = await box.told(await box.submit())

    assert [one.code for one in request.deliveries] == [302]


async def test_slow_target_times_out_and_is_tried_again(open_box: OpenBox):
    box = await open_box(webhook_timeout_s=(0.01, 5.0), webhook_retry_s=(0.0,))
    box.hook.slow_s = 0.05

    request = await box.told(await box.submit())

    assert [(one.code, one.error) for one in request.deliveries] == [(None, "timeout"), (200, None)]


async def test_target_that_breaks_is_tried_again(open_box: OpenBox):
    box = await open_box(webhook_retry_s=(0.001,))
    box.hook.codes = []

    request = await box.told(await box.submit())

    assert [one.code for one in request.deliveries] == [None, None]
    assert request.deliveries[0].error is not None


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "http://localhost/x", "http://10.0.0.1/", "http://[::1]/"])
async def test_private_target_is_final_where_fals_own_rule_holds(open_box: OpenBox, url: str):
    box = await open_box(allow_private_webhooks=False)

    request = await box.told(await box.submit(hook=url))

    assert [one.error for one in request.deliveries] == ["fal doesn't post to private addresses"]
    assert box.hook.heard == []


async def test_cancelled_request_is_told_of_only_when_configured_or_scripted(open_box: OpenBox):
    silent = await open_box(queue_s=60)
    telling = await open_box(queue_s=60, webhook_for_cancelled=True)

    for box, script in ((silent, {}), (silent, {"webhook": "ok"}), (telling, {})):
        request_id = await box.submit(script=script)
        await box.cancel(request_id)
        await box.told(request_id)

    assert len(silent.hook.heard) == 1
    assert telling.hook.said[0]["error"] == "Invalid status code: 499"


async def test_webhook_can_be_sent_again_truly_and_falsely(box: Box):
    request_id = await box.submit()
    await box.told(request_id)

    again = await box.client.post(f"/simulator/webhooks/{request_id}", json={})
    forged = await box.client.post(f"/simulator/webhooks/{request_id}", json={"form": "forged", "url": f"{HOOK}/2"})

    assert again.json() | {"at": 0} == {"form": "ok", "at": 0, "code": 200, "error": None}
    assert forged.json()["form"] == "forged"
    assert [await valid(box, one) for one in box.hook.heard] == [True, True, False]
    assert box.hook.heard[0][1] == box.hook.heard[1][1]


async def test_rotated_key_signs_and_both_are_published(box: Box):
    before = (await box.client.get("/.well-known/jwks.json")).json()["keys"]

    after = (await box.client.post("/simulator/keys/rotate")).json()["keys"]
    await box.told(await box.submit())

    assert after[:1] == before
    assert len(after) == 2
    assert await valid(box, box.hook.heard[0])


async def test_webhooks_go_over_sockets_when_no_transport_is_given(served: Any):
    from app.simulator.app import create_simulator  # noqa: PLC0415
    from app.simulator.config import SimulatorConfig  # noqa: PLC0415
    from tests.simulator.conftest import AUTH, O3, Hook  # noqa: PLC0415

    hook = Hook()
    target = await served(lambda _: hook)
    fal = await served(lambda url: create_simulator(SimulatorConfig(public_url=url, queue_s=0, run_s=0)))
    async with httpx.AsyncClient(base_url=fal, headers=AUTH) as client:
        ids = set()
        for _ in range(5):
            answer = await client.post(f"/{O3}", params={"fal_webhook": target}, json={"duration": "5"})
            ids.add(answer.json()["request_id"])
        for _ in range(500):
            books = (await client.get("/simulator/requests")).json()["requests"]
            if all(entry["told"] for entry in books):
                break

    assert {said["request_id"] for said in hook.said} == ids
