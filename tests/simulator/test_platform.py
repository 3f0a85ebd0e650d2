"""The Platform API: prices, bills and the history of requests."""

from decimal import Decimal

import pytest

from app.simulator import tariff
from app.simulator.tariff import UNIT_PRICES
from tests.simulator.conftest import O3, Box, OpenBox

K = "fal-ai/kling-video"


@pytest.mark.parametrize(
    ("path", "order", "audio", "per_second"),
    [
        ("o3/4k/text-to-video", {}, True, "0.42"),
        ("o3/4k/text-to-video", {}, False, "0.42"),
        ("o3/pro/text-to-video", {}, False, "0.112"),
        ("o3/pro/image-to-video", {}, True, "0.14"),
        ("o3/standard/reference-to-video", {}, False, "0.084"),
        ("o3/standard/text-to-video", {}, True, "0.112"),
        ("v3/pro/text-to-video", {}, False, "0.112"),
        ("v3/pro/text-to-video", {}, True, "0.168"),
        ("v3/pro/image-to-video", {"voice_ids": ["v"]}, True, "0.196"),
        ("v3/standard/text-to-video", {}, True, "0.126"),
        ("v3/turbo/pro/text-to-video", {}, False, "0.14"),
        ("v3/pro/motion-control", {}, False, "0.168"),
        ("v2.6/pro/text-to-video", {}, False, "0.07"),
        ("v2.6/pro/image-to-video", {}, True, "0.14"),
        ("v2.1/master/text-to-video", {}, False, "0.28"),
        ("v1/standard/image-to-video", {}, False, "0.045"),
    ],
)
def test_units_times_price_is_what_the_page_says(path: str, order: dict[str, object], audio: bool, per_second: str):
    endpoint = f"{K}/{path}"

    units = tariff.units(endpoint, order, seconds=Decimal(10), audio=audio)

    assert units * UNIT_PRICES[endpoint] == Decimal(per_second) * 10


async def test_pricing_takes_repeated_and_comma_separated_ids(box: Box):
    query = f"endpoint_id={O3},{K}/o3/pro/text-to-video&endpoint_id=some/one"

    prices = (await box.client.get(f"/v1/models/pricing?{query}")).json()["prices"]

    assert {one["endpoint_id"]: one["unit_price"] for one in prices} == {
        O3: 0.42,
        f"{K}/o3/pro/text-to-video": 0.14,
        "some/one": 0.10,
    }
    assert {(one["unit"], one["currency"]) for one in prices} == {("seconds", "USD")}


async def test_pricing_without_ids_is_refused(box: Box):
    answer = await box.client.get("/v1/models/pricing")

    assert answer.status_code == 422
    assert answer.json()["error"].keys() == {"type", "message"}


async def test_estimate_multiplies_and_knows_no_input(box: Box):
    by_unit = {"estimate_type": "unit_price", "endpoints": {O3: {"unit_quantity": 5}}}
    by_call = {"estimate_type": "historical_api_price", "endpoints": {O3: {"call_quantity": 2}}}

    answers = [(await box.client.post("/v1/models/pricing/estimate", json=one)).json() for one in (by_unit, by_call)]
    wrong = await box.client.post("/v1/models/pricing/estimate", json={"endpoints": {}})

    assert [one["total_cost"] for one in answers] == [2.1, 4.2]
    assert wrong.status_code == 422


async def test_billing_event_appears_after_its_delay(open_box: OpenBox):
    box = await open_box(billing_delay_s=30)
    request_id = await box.submit({"prompt": "x", "duration": "5"})
    await box.submit({})
    await box.ended(request_id)
    url = f"/v1/models/billing-events?request_id={request_id}"

    before = (await box.client.get(url)).json()
    await box.advance(31)
    after = (await box.client.get(url)).json()

    assert before["billing_events"] == []
    event = after["billing_events"][0]
    assert (event["request_id"], event["endpoint_id"]) == (request_id, O3)
    assert (event["output_units"], event["unit_price"], event["cost_total"]) == (5, 0.42, 2.1)
    assert event["cost_estimate_nano_usd"] == 2_100_000_000
    assert len((await box.client.get("/v1/models/billing-events")).json()["billing_events"]) == 1


async def test_bill_may_differ_and_may_never_come(open_box: OpenBox):
    box = await open_box(billing_delay_s=0)
    dear = await box.submit(script={"billed": "9.99"})
    never = await box.submit(script={"billing_s": "never"})
    for request_id in (dear, never):
        await box.ended(request_id)
    await box.advance(3600)

    events = (await box.client.get("/v1/models/billing-events")).json()["billing_events"]

    assert [(one["request_id"], one["cost_total"]) for one in events] == [(dear, 9.99)]


async def test_usage_adds_up_by_endpoint(open_box: OpenBox):
    box = await open_box(billing_delay_s=0)
    for _ in range(2):
        await box.ended(await box.submit({"prompt": "x", "duration": "5"}))

    usage = (await box.client.get("/v1/models/usage")).json()["time_series"][0]["results"]

    assert [(one["endpoint_id"], one["quantity"], one["cost_total"]) for one in usage] == [(O3, 10, 4.2)]


async def test_history_finds_a_request_by_its_input(box: Box):
    request_id = await box.submit({"prompt": "find me", "duration": "5"})
    hidden = await box.submit({"prompt": "hide me"}, x_fal_store_io="0")
    for one in (request_id, hidden):
        await box.ended(one)

    answer = await box.client.get(f"/v1/models/requests/by-endpoint?endpoint_id={O3}&expand=payloads")

    items = {one["request_id"]: one for one in answer.json()["items"]}
    found = items[request_id]
    assert found["json_input"] == {"prompt": "find me", "duration": "5"}
    assert found["json_output"].keys() == {"video"}
    assert (found["status_code"], found["endpoint_id"]) == (200, O3)
    assert "json_input" not in items[hidden]


async def test_history_is_filtered_and_paged(box: Box):
    good, bad = await box.submit(), await box.submit({})
    for one in (good, bad):
        await box.ended(one)
    url = f"/v1/models/requests/by-endpoint?endpoint_id={O3}"

    errors = (await box.client.get(f"{url}&status=user_error")).json()["items"]
    one = (await box.client.get(f"{url}&request_id={good}&sort_by=duration")).json()["items"]
    none = (await box.client.get(f"{url}&end=2020-01-01T00:00:00Z")).json()["items"]
    first = (await box.client.get(f"{url}&limit=1")).json()
    second = (await box.client.get(f"{url}&limit=1&cursor={first['next_cursor']}")).json()

    assert [item["request_id"] for item in errors] == [bad]
    assert [item["request_id"] for item in one] == [good]
    assert none == []
    assert (first["has_more"], second["has_more"], second["next_cursor"]) == (True, False, None)
    assert {item["request_id"] for page in (first, second) for item in page["items"]} == {good, bad}
    assert (await box.client.get(f"{url}&start=yesterday")).status_code == 422


@pytest.mark.parametrize("listed", [True, False])
async def test_history_shows_queued_requests_only_when_configured(open_box: OpenBox, listed: bool):
    box = await open_box(queue_s=60, history_lists_queued=listed)
    await box.submit()

    items = (await box.client.get(f"/v1/models/requests/by-endpoint?endpoint_id={O3}")).json()["items"]

    assert len(items) == listed


async def test_deleted_payloads_take_the_output_file_along(box: Box):
    request_id = await box.submit()
    await box.ended(request_id)
    url = (await box.result(request_id)).json()["video"]["url"]

    deleted = await box.client.delete(f"/v1/models/requests/{request_id}/payloads")

    assert deleted.json() == {"cdn_delete_results": [{"link": url, "exception": None}]}
    assert (await box.client.get(url)).status_code == 404
    assert (await box.client.delete("/v1/models/requests/nobody/payloads")).status_code == 404


async def test_billing_is_for_admins(open_box: OpenBox):
    box = await open_box(keys=frozenset({"kid:ksecret"}), admin_keys=frozenset({"boss"}))
    boss = {"Authorization": "Key boss"}
    for path in ("models/billing-events", "models/usage", "account/billing"):
        assert (await box.client.get(f"/v1/{path}")).json()["error"]["type"] == "authorization_error"
        assert (await box.client.get(f"/v1/{path}", headers=boss)).status_code == 200
    assert (await box.client.get(f"/v1/models/pricing?endpoint_id={O3}")).status_code == 200
    assert (
        await box.client.get(f"/v1/models/pricing?endpoint_id={O3}", headers={"Authorization": ""})
    ).status_code == 401


async def test_balance_goes_down_and_the_account_locks_at_zero(open_box: OpenBox):
    box = await open_box(balance=Decimal("2.10"))
    await box.ended(await box.submit({"prompt": "x", "duration": "5"}))

    left = (await box.client.get("/v1/account/billing?expand=credits")).json()["credits"]
    refused = await box.post()

    assert left == {"current_balance": 0.0, "currency": "USD"}
    assert refused.status_code == 403
    assert refused.json()["detail"].startswith("User is locked. Reason: Exhausted balance.")


async def test_models_and_meta_need_no_key(box: Box):
    nobody = {"Authorization": ""}

    models = (await box.client.get("/v1/models?q=o3/4k&limit=100", headers=nobody)).json()["models"]
    meta = (await box.client.get("/v1/meta", headers=nobody)).json()

    assert O3 in {one["endpoint_id"] for one in models}
    assert meta["webhook_ip_ranges"]
    assert (await box.client.get("/v1/nothing")).status_code == 404
