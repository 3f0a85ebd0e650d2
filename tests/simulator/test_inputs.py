"""What fal says of an input, once it runs."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.simulator.inputs import problems, shape_of
from app.simulator.tariff import UNIT_PRICES
from tests.simulator.conftest import O3, Box

K = "fal-ai/kling-video"
URL = "https://files.example/a.png"


def kinds(endpoint: str, order: Any) -> list[tuple[str, str]]:
    return [(str(found["loc"][-1]), found["type"]) for found in problems(endpoint, order)]


@pytest.mark.parametrize(
    ("endpoint", "order", "expected"),
    [
        (f"{K}/v1/pro/text-to-video", {}, [("prompt", "missing")]),
        (O3, {}, [("prompt", "missing")]),
        (O3, {"prompt": 5}, [("prompt", "string_type")]),
        (O3, {"prompt": "x" * 2501}, [("prompt", "string_too_long")]),
        (O3, {"prompt": "x", "duration": "16"}, [("duration", "literal_error")]),
        (O3, {"prompt": "x", "duration": 5}, [("duration", "literal_error")]),
        (f"{K}/v1/pro/text-to-video", {"prompt": "x", "duration": "3"}, [("duration", "literal_error")]),
        (O3, {"prompt": "x", "aspect_ratio": "4:3"}, [("aspect_ratio", "literal_error")]),
        (O3, {"prompt": "x", "generate_audio": "yes"}, [("generate_audio", "bool_type")]),
        (f"{K}/v3/pro/text-to-video", {"prompt": "x", "cfg_scale": 2}, [("cfg_scale", "less_than_equal")]),
        (f"{K}/o3/pro/image-to-video", {"prompt": "x"}, [("image_url", "missing")]),
        (f"{K}/v3/pro/image-to-video", {"prompt": "x"}, [("start_image_url", "missing")]),
        (f"{K}/v2.6/pro/image-to-video", {"prompt": "x"}, [("start_image_url", "missing")]),
        (f"{K}/v1.6/pro/image-to-video", {"prompt": "x", "image_url": "a.png"}, [("image_url", "file_download_error")]),
        (f"{K}/o3/pro/video-to-video/edit", {"prompt": "x"}, [("video_url", "missing")]),
        (O3, {"prompt": "x", "multi_prompt": [{"prompt": "y"}]}, [("body", "value_error")]),
        (O3, {"multi_prompt": []}, [("multi_prompt", "sequence_too_short"), ("multi_prompt", "value_error")]),
        (O3, {"multi_prompt": [{"duration": "5"}]}, [("prompt", "missing")]),
        (O3, {"multi_prompt": [{"prompt": "x", "duration": "15"}] * 2}, [("multi_prompt", "value_error")]),
        (O3, ["x"], [("body", "dict_type")]),
        (O3, None, [("body", "dict_type")]),
    ],
)
def test_wrong_inputs_are_named_as_pydantic_names_them(endpoint: str, order: Any, expected: list[tuple[str, str]]):
    assert kinds(endpoint, order) == expected


@pytest.mark.parametrize(
    ("endpoint", "order"),
    [
        (O3, {"prompt": "x", "unheard_of": 1}),
        (O3, {"prompt": "x", "duration": None, "multi_prompt": None}),
        (O3, {"multi_prompt": [{"prompt": "x", "duration": "1"}, {"prompt": "y"}]}),
        (f"{K}/v2.6/pro/image-to-video", {"prompt": "x", "start_image_url": URL}),
        (f"{K}/v3/pro/motion-control", {"image_url": URL, "video_url": URL, "character_orientation": "image"}),
        ("someone/else", {"anything": "goes"}),
        ("someone/else", None),
    ],
)
def test_right_inputs_pass(endpoint: str, order: Any):
    assert problems(endpoint, order) == []


@given(st.sampled_from(sorted(UNIT_PRICES)), st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=3))
def test_checked_orders_of_every_endpoint_have_a_shape(endpoint: str, extra: dict[str, str]):
    order = {"prompt": "x", "image_url": URL, "start_image_url": URL, "video_url": URL} | {
        name: value for name, value in extra.items() if name not in {"duration", "aspect_ratio", "cfg_scale"}
    }

    shape = shape_of(endpoint, order)

    assert shape.seconds == 5
    assert (shape.width, shape.height) == (640, 360)


@given(st.lists(st.integers(1, 15), min_size=1, max_size=6))
def test_shots_last_as_long_as_their_sum_and_3_to_15_seconds(lengths: list[int]):
    order = {"multi_prompt": [{"prompt": "x", "duration": str(one)} for one in lengths]}

    assert shape_of(O3, order).seconds == sum(lengths)
    assert (problems(O3, order) == []) is (3 <= sum(lengths) <= 15)


def test_audio_is_as_ordered_or_as_the_endpoint_has_it():
    assert shape_of(O3, {}).audio is False
    assert shape_of(O3, {"generate_audio": True}).audio is True
    assert shape_of(f"{K}/v3/pro/text-to-video", {}).audio is True
    assert shape_of(f"{K}/v3/pro/text-to-video", {"generate_audio": False}).audio is False


def test_edit_is_as_long_as_its_input():
    assert shape_of(f"{K}/o3/pro/video-to-video/edit", {"duration": "9"}, input_s=Decimal("4.5")).seconds == Decimal(
        "4.5"
    )


async def test_wrong_input_completes_as_a_free_422(box: Box):
    request_id = await box.submit({"duration": "5"})
    await box.told(request_id)

    status, result = await box.status(request_id), await box.result(request_id)

    assert (status.status_code, status.json()["error_type"]) == (200, "missing")
    assert result.status_code == 422
    assert result.headers["x-fal-billable-units"] == "0"
    assert {"loc", "msg", "type", "input", "url"} <= result.json()["detail"][0].keys()
    assert box.hook.said[0]["payload"] == result.json()
    assert (await box.books())[0]["billed"] == "0"


async def test_sub_path_that_the_app_lacks_is_found_out_when_it_runs(box: Box):
    request_id = await box.submit(endpoint=f"{K}/v9/text-to-video")
    await box.ended(request_id)

    result = await box.result(request_id)

    assert (result.status_code, result.json()) == (404, {"detail": "Path /v9/text-to-video not found"})
    assert result.headers["x-fal-billable-units"] == "0"


async def test_input_file_that_is_not_on_the_cdn_fails_to_download(box: Box):
    order = {"prompt": "x", "image_url": box.simulator.files.url("b/00000000/gone.png")}
    request_id = await box.submit(order, endpoint=f"{K}/o3/pro/image-to-video")
    await box.ended(request_id)

    assert (await box.result(request_id)).json()["detail"][0]["type"] == "file_download_error"
