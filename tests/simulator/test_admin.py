"""What can be seen and set under /simulator."""

from decimal import Decimal

from tests.simulator.conftest import HOOK, O3, Box, OpenBox


async def test_books_tell_everything_of_an_order(box: Box):
    request_id = await box.submit({"prompt": "x", "duration": "5"})
    await box.told(request_id)

    entry = (await box.books())[0]

    assert entry["request_id"] == request_id
    assert (entry["endpoint"], entry["input"], entry["webhook_url"]) == (O3, {"prompt": "x", "duration": "5"}, HOOK)
    assert (entry["state"], entry["outcome"], entry["billed"], entry["submits"]) == ("COMPLETED", "ok", "2.10", 1)
    assert [one["code"] for one in entry["webhooks"]] == [200]
    one = (await box.client.get(f"/simulator/requests/{request_id}")).json()
    assert one["result"]["code"] == 200
    assert (await box.client.get("/simulator/requests/nobody")).status_code == 404


async def test_books_are_filtered_paged_and_summed(box: Box):
    ids = [await box.submit({"prompt": "x"}, hook=f"{HOOK}/{number}") for number in range(3)]
    for one in ids:
        await box.ended(one)

    first = (await box.client.get("/simulator/requests?limit=2")).json()
    rest = (await box.client.get(f"/simulator/requests?after={first['next_after']}")).json()
    none = (await box.client.get("/simulator/requests?limit=0")).json()
    mine = (await box.client.get("/simulator/requests", params={"webhook_url": f"{HOOK}/1"})).json()

    assert [entry["request_id"] for entry in first["requests"] + rest["requests"]] == ids
    assert [entry["request_id"] for entry in mine["requests"]] == ids[1:2]
    assert (none["requests"], none["next_after"], rest["next_after"]) == ([], 0, None)
    assert first["totals"] | {"submits": 3} == first["totals"]
    assert (first["totals"]["accepted"], first["totals"]["twins"], first["totals"]["billed"]) == (3, 0, "6.30")


async def test_locked_account_refuses_orders_and_still_finishes_the_rest(slow_box: Box):
    request_id = await slow_box.submit()
    await slow_box.client.put("/simulator/account", json={"locked": True, "reason": "Suspended"})

    refused = await slow_box.post()
    await slow_box.advance(10)
    await slow_box.advance(10)
    await slow_box.ended(request_id)
    unlocked = (await slow_box.client.put("/simulator/account", json={"locked": False})).json()

    assert refused.status_code == 403
    assert refused.json()["detail"].startswith("User is locked. Reason: Suspended.")
    assert (unlocked["locked"], unlocked["reason"]) == (False, None)
    assert (await slow_box.post()).status_code == 200


async def test_spent_account_is_opened_by_a_top_up(open_box: OpenBox):
    box = await open_box(balance=Decimal(0))
    before = (await box.post()).status_code

    account = (await box.client.put("/simulator/account", json={"balance": "10"})).json()

    assert before == 403
    assert account == {"locked": False, "reason": None, "balance": "10", "spent": "0", "concurrency": 10}
    assert (await box.post()).status_code == 200


async def test_clock_is_read_and_set(box: Box):
    stopped = (await box.client.put("/simulator/clock", json={"offset_s": 3600, "stopped": True})).json()
    later = (await box.client.get("/simulator/clock")).json()
    wrong = await box.client.put("/simulator/clock", json={"speed": 2})

    assert stopped["stopped"] is True
    assert stopped["now"] == later["now"]
    assert abs(stopped["offset_s"] - 3600) < 1
    assert wrong.status_code == 422


async def test_scripts_can_be_taken_back_and_wrong_ones_are_refused(box: Box):
    await box.client.put("/simulator/script", json={"script": {"lost_answer": True}, "next": 3})
    waiting = (await box.client.get("/simulator/script")).json()["scripts"]
    none = (await box.client.put("/simulator/script", json={"script": {}, "next": 0})).json()["scripts"]
    wrong = await box.client.put("/simulator/script", json={"script": {"odd": 1}})

    assert (len(waiting), none, wrong.status_code) == (3, [], 422)


async def test_webhook_cannot_be_sent_of_what_has_not_ended_or_in_an_unknown_form(slow_box: Box):
    request_id = await slow_box.submit()

    early = await slow_box.client.post(f"/simulator/webhooks/{request_id}", json={})
    odd = await slow_box.client.post(f"/simulator/webhooks/{request_id}", json={"form": "odd"})

    assert (early.status_code, odd.status_code) == (409, 422)


async def test_page_says_plainly_that_no_money_is_spent(box: Box):
    await box.submit({"prompt": "<script>"}, endpoint="acme/<b>")

    page = (await box.client.get("/simulator")).text

    assert "This is a simulator, not fal: no money is spent" in page
    assert "<b>" not in page
    assert (await box.client.get("/")).headers["location"] == "/simulator"
