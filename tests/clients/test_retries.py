"""
What the official clients do when fal's answer is lost or a refusal: the contract's table 4.1, and what it costs.

fal knows no idempotency, so a client that sends a submit twice buys twice. This is why Callsheet exists.
"""

from typing import Final

import pytest

from tests.clients.stage import Start

O3: Final = "fal-ai/kling-video/o3/4k/text-to-video"
# Five seconds at $0.42.
PRICE: Final = "2.10"


def once(fault: str) -> str:
    """A prompt whose order meets with this fault of the simulator the first time only."""
    return f"[[sim: {fault}, times=1]]"


@pytest.fixture(params=["python", "javascript"])
def client(request: pytest.FixtureRequest) -> Start:
    """Either client."""
    start: Start = request.getfixturevalue(request.param)
    return start


@pytest.mark.parametrize(("fault", "status"), [("lost_answer", None), ("answer=502", 502)])
async def test_a_lost_answer_makes_the_client_buy_a_second_video(client: Start, fault: str, status: int | None):
    fal = await client()

    said = await fal.do("submit", prompt=once(fault))

    first, second = fal.heard
    assert first.line == second.line == f"POST queue.fal.run/{O3}"
    assert (first.body, first.headers) == (second.body, second.headers)
    assert (first.status, second.status) == (status, 200)
    forgotten, known = await fal.books()
    assert forgotten["billed"] == known["billed"] == PRICE
    assert said["returned"]["request_id"] == known["request_id"] != forgotten["request_id"]


async def test_pythons_async_client_buys_twice_as_well(python: Start):
    fal = await python()

    await fal.do("submit_async", prompt=once("lost_answer"))

    assert [exchange.status for exchange in fal.heard] == [None, 200]
    assert [order["billed"] for order in await fal.books()] == [PRICE, PRICE]


async def test_a_request_lost_on_the_way_is_sent_again_and_bought_once(client: Start):
    fal = await client()

    said = await fal.do("submit", prompt=once("lost_request"))

    assert [exchange.status for exchange in fal.heard] == [None, 200]
    [order] = await fal.books()
    assert order["request_id"] == said["returned"]["request_id"]


@pytest.mark.parametrize(
    ("client", "how", "reaction"),
    [
        ("python", "429", "again"),
        ("python", "409", "again"),
        ("python", "503", "error"),
        ("python", "nginx", "again"),
        ("python", "500", "error"),
        ("javascript", "429", "again"),
        ("javascript", "409", "error"),
        ("javascript", "503", "again"),
        ("javascript", "nginx", "again"),
        ("javascript", "500", "error"),
    ],
    indirect=["client"],
)
async def test_which_refusals_of_a_submit_are_tried_again(client: Start, how: str, reaction: str):
    fal = await client(queue_s=600.0)

    said = await fal.do("submit", prompt=once(f"refuse={how}"))

    if reaction == "again":
        assert [exchange.status for exchange in fal.heard][1:] == [200]
        assert said["returned"]["request_id"] == fal.heard[1].answered["request_id"]
    else:
        [submit] = fal.heard
        assert submit.status == said["raised"]["status"] == int(how)


async def test_a_refusal_of_the_model_names_its_reasons(client: Start):
    fal = await client()

    said = await fal.do("run", prompt="[[sim: outcome=policy]]")

    [run] = fal.heard
    assert run.status == said["raised"]["status"] == 422
    assert said["raised"]["reasons"] == run.answered["detail"]
    assert said["raised"]["reasons"][0]["type"] == "content_policy_violation"


async def test_a_start_timeout_of_the_callers_own_is_final(client: Start):
    fal = await client(queue_s=600.0)
    request_id = await fal.order(O3, {"prompt": "hi"}, {"X-Fal-Request-Start-Timeout": "0.2"})

    said = await fal.do("result", request_id=request_id)

    result = fal.heard[-1]
    assert [exchange.status for exchange in fal.heard].count(504) == 1
    assert result.answer_headers["x-fal-request-timeout-type"] == "user"
    assert said["raised"]["status"] == 504
    assert said["raised"]["timed_out"]
