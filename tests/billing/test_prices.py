"""
Prices, model by model, as fal's pages and price list state them.

The tables below were written by hand from those sources, not from the model files: a price that moves
must be changed in both places.
"""

from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.billing.prices import Quote, Unpriced, quote, settled_seconds
from app.catalog.catalog import load
from app.catalog.model import Model
from app.catalog.rates import Basis
from app.money import SMALLEST, video_cost

CATALOG = load()
KLING = "fal-ai/kling-video"


def settled(most: Quote, measured: Decimal | None) -> Decimal:
    return settled_seconds(most.seconds, measured, least=most.min_seconds, step=most.step_seconds)


# One price a second, whatever else is ordered.
FLAT = {
    f"{KLING}/o3/4k/text-to-video": "0.42",
    f"{KLING}/o3/4k/image-to-video": "0.42",
    f"{KLING}/o3/4k/reference-to-video": "0.42",
    f"{KLING}/o3/pro/video-to-video/reference": "0.168",
    f"{KLING}/o3/standard/video-to-video/reference": "0.126",
    f"{KLING}/v3/4k/text-to-video": "0.42",
    f"{KLING}/v3/4k/image-to-video": "0.42",
    f"{KLING}/v3/turbo/pro/text-to-video": "0.14",
    f"{KLING}/v3/turbo/pro/image-to-video": "0.14",
    f"{KLING}/v3/turbo/standard/text-to-video": "0.112",
    f"{KLING}/v3/turbo/standard/image-to-video": "0.112",
    f"{KLING}/o1/image-to-video": "0.112",
    f"{KLING}/o1/standard/image-to-video": "0.084",
    f"{KLING}/o1/reference-to-video": "0.112",
    f"{KLING}/o1/standard/reference-to-video": "0.084",
    f"{KLING}/o1/video-to-video/reference": "0.168",
    f"{KLING}/o1/standard/video-to-video/reference": "0.126",
    f"{KLING}/v2/master/text-to-video": "0.28",
    f"{KLING}/v1.6/pro/text-to-video": "0.098",
    f"{KLING}/v1.6/pro/image-to-video": "0.098",
    f"{KLING}/v1.6/pro/elements": "0.098",
    f"{KLING}/v1.6/pro/effects": "0.098",
    f"{KLING}/v1.6/standard/text-to-video": "0.056",
    f"{KLING}/v1.6/standard/image-to-video": "0.056",
    f"{KLING}/v1.6/standard/elements": "0.056",
    f"{KLING}/v1.6/standard/effects": "0.056",
    f"{KLING}/v1.5/pro/text-to-video": "0.10",
    f"{KLING}/v1.5/pro/image-to-video": "0.10",
    f"{KLING}/v1.5/pro/effects": "0.10",
    f"{KLING}/v1/standard/text-to-video": "0.045",
    f"{KLING}/v1/standard/image-to-video": "0.045",
    f"{KLING}/v1/standard/effects": "0.045",
    f"{KLING}/v1/pro/text-to-video": "0.10",
    f"{KLING}/v1/pro/image-to-video": "0.10",
}

# Without and with sound.
SOUND = {
    f"{KLING}/o3/pro/text-to-video": ("0.112", "0.14"),
    f"{KLING}/o3/pro/image-to-video": ("0.112", "0.14"),
    f"{KLING}/o3/pro/reference-to-video": ("0.112", "0.14"),
    f"{KLING}/o3/standard/text-to-video": ("0.084", "0.112"),
    f"{KLING}/o3/standard/image-to-video": ("0.084", "0.112"),
    f"{KLING}/o3/standard/reference-to-video": ("0.084", "0.112"),
    f"{KLING}/v2.6/pro/text-to-video": ("0.07", "0.14"),
}

# Without sound, with sound, and with a voice of one's own.
VOICE = {
    f"{KLING}/v3/pro/text-to-video": ("0.112", "0.168", "0.196"),
    f"{KLING}/v3/pro/image-to-video": ("0.112", "0.168", "0.196"),
    f"{KLING}/v3/standard/text-to-video": ("0.084", "0.126", "0.154"),
    f"{KLING}/v3/standard/image-to-video": ("0.084", "0.126", "0.154"),
    f"{KLING}/v2.6/pro/image-to-video": ("0.07", "0.14", "0.168"),
}

# The first five seconds, and each further one.
BASE = {
    f"{KLING}/v2.5-turbo/pro/text-to-video": ("0.35", "0.07"),
    f"{KLING}/v2.5-turbo/pro/image-to-video": ("0.35", "0.07"),
    f"{KLING}/v2.5-turbo/standard/image-to-video": ("0.21", "0.042"),
    f"{KLING}/v2.1/master/text-to-video": ("1.40", "0.28"),
    f"{KLING}/v2.1/master/image-to-video": ("1.40", "0.28"),
    f"{KLING}/v2.1/pro/image-to-video": ("0.49", "0.098"),
    f"{KLING}/v2.1/standard/image-to-video": ("0.28", "0.056"),
    f"{KLING}/v2/master/image-to-video": ("1.40", "0.28"),
}

# By the length of the caller's file: a second's price, and the longest file.
MEASURED = {
    f"{KLING}/o3/4k/video-to-video/edit": ("0.42", "15"),
    f"{KLING}/o3/pro/video-to-video/edit": ("0.168", "15"),
    f"{KLING}/o3/standard/video-to-video/edit": ("0.126", "15"),
    f"{KLING}/o1/video-to-video/edit": ("0.168", "10.05"),
    f"{KLING}/o1/standard/video-to-video/edit": ("0.126", "10.05"),
    f"{KLING}/v3/pro/motion-control": ("0.168", "30"),
    f"{KLING}/v3/standard/motion-control": ("0.126", "30"),
    f"{KLING}/v2.6/pro/motion-control": ("0.112", "30"),
    f"{KLING}/v2.6/standard/motion-control": ("0.07", "30"),
    f"{KLING}/ai-avatar/v2/pro": ("0.115", "300"),
    f"{KLING}/ai-avatar/v2/standard": ("0.0562", "300"),
    f"{KLING}/v1/pro/ai-avatar": ("0.115", "60"),
    f"{KLING}/v1/standard/ai-avatar": ("0.0562", "60"),
    f"{KLING}/lipsync/audio-to-video": ("0.014", "10"),
    f"{KLING}/lipsync/text-to-video": ("0.014", "60"),
}

OTHERS = {
    f"{KLING}/video-to-audio",
    "kling/v4/text-to-video",
    "kling/v4/image-to-video",
    "kling/v4/reference-to-video",
    "kling/v4/video-to-video/edit",
}

# No page or price list of fal's confirms these.
UNVERIFIED = {
    f"{KLING}/v1/pro/text-to-video",
    f"{KLING}/v1/pro/image-to-video",
    f"{KLING}/o3/pro/video-to-video/edit",
    f"{KLING}/o3/standard/video-to-video/edit",
    f"{KLING}/o3/pro/video-to-video/reference",
    f"{KLING}/o3/standard/video-to-video/reference",
    f"{KLING}/lipsync/text-to-video",
    f"{KLING}/video-to-audio",
    "kling/v4/text-to-video",
    "kling/v4/image-to-video",
    "kling/v4/video-to-video/edit",
}

PRICED = [model for model in CATALOG.models if model.price is not None]


def named(name: str) -> Model:
    """The model with this id."""
    model = CATALOG.get(name)
    assert model is not None
    return model


def ordered(name: str, **changes: Any) -> Quote:
    """The quote for *name*'s example with *changes*, made sure to be an order the model takes."""
    model = named(name)
    value = {**model.example, **changes}
    if "multi_prompt" in model.example and "multi_prompt" not in changes:
        value = {"prompt": "A train.", **changes}
    assert model.faults(value) == []
    return quote(model, value)


def test_every_endpoint_is_in_exactly_one_table():
    tables = [set(FLAT), set(SOUND), set(VOICE), set(BASE), set(MEASURED), OTHERS]

    assert sum(map(len, tables)) == 74
    assert set().union(*tables) == {model.id for model in CATALOG.models}


@pytest.mark.parametrize(("name", "per_second"), FLAT.items())
def test_one_price_a_second(name, per_second):
    ten = ordered(name, duration="10")

    assert (ten.basis, ten.is_maximum) == (Basis.DURATION, False)
    assert ten.seconds == 10
    assert ten.amount == 10 * Decimal(per_second)


@pytest.mark.parametrize(("name", "off", "on"), [(name, *prices) for name, prices in SOUND.items()])
def test_sound_costs_more(name, off, on):
    assert ordered(name, duration="10", generate_audio=False).amount == 10 * Decimal(off)
    assert ordered(name, duration="10", generate_audio=True).amount == 10 * Decimal(on)


@pytest.mark.parametrize(("name", "off", "on", "voice"), [(name, *prices) for name, prices in VOICE.items()])
def test_a_voice_costs_more_than_sound(name, off, on, voice):
    assert ordered(name, duration="10", generate_audio=False, voice_ids=["v"]).amount == 10 * Decimal(off)
    assert ordered(name, duration="10", generate_audio=True).amount == 10 * Decimal(on)
    assert ordered(name, duration="10", generate_audio=True, voice_ids=[]).amount == 10 * Decimal(on)
    assert ordered(name, duration="10", generate_audio=True, voice_ids=["v"]).amount == 10 * Decimal(voice)


@pytest.mark.parametrize(("tier", "voice"), [("pro", "0.196"), ("standard", "0.154")])
def test_a_voice_bound_to_an_element_costs_as_much(tier, voice):
    elements = [{"frontal_image_url": "https://example.com/a.png"}, {"voice_id": "v"}]

    assert ordered(f"{KLING}/v3/{tier}/image-to-video", duration="10", elements=elements).amount == 10 * Decimal(voice)


def test_sound_is_on_by_default_in_v3_and_off_in_o3():
    assert ordered(f"{KLING}/o3/pro/text-to-video", duration="5").amount == Decimal("0.56")
    v3 = named(f"{KLING}/v3/pro/text-to-video")
    assert quote(v3, {"prompt": "a"}).amount == Decimal("0.84")


@pytest.mark.parametrize(("name", "base", "further"), [(name, *prices) for name, prices in BASE.items()])
def test_a_base_covers_five_seconds(name, base, further):
    assert ordered(name, duration="5").amount == Decimal(base)
    assert ordered(name, duration="10").amount == Decimal(base) + 5 * Decimal(further)


@pytest.mark.parametrize(("name", "per_second", "longest"), [(name, *told) for name, told in MEASURED.items()])
def test_a_file_of_unknown_length_is_quoted_at_the_longest(name, per_second, longest):
    changes = {"character_orientation": "video"} if "motion-control" in name else {}

    most = ordered(name, **changes)

    assert most.is_maximum
    assert most.basis == (Basis.INPUT_AUDIO if "avatar" in name else Basis.INPUT_VIDEO)
    assert most.amount == Decimal(longest) * Decimal(per_second)


def test_motion_by_the_images_orientation_is_at_most_ten_seconds():
    assert ordered(f"{KLING}/v3/pro/motion-control", character_orientation="image").amount == Decimal("1.68")


def test_sound_for_a_video_costs_the_same_whatever_its_length():
    most = ordered(f"{KLING}/video-to-audio")

    assert most.amount == Decimal("0.035")
    assert video_cost(settled(most, Decimal(4)), most.price) == Decimal("0.035")


def test_kling_4_is_priced_by_resolution():
    assert ordered("kling/v4/text-to-video", duration=10, resolution="720p").amount == Decimal("1.57")
    assert ordered("kling/v4/image-to-video", duration=10).amount == Decimal("2.35")
    assert ordered("kling/v4/video-to-video/edit", resolution="720p").amount == 2 * 30 * Decimal("0.094")
    assert ordered("kling/v4/video-to-video/edit", resolution="1080p").amount == 2 * 30 * Decimal("0.141")


def test_a_model_without_a_price_is_refused_with_the_reason():
    model = named("kling/v4/reference-to-video")

    with pytest.raises(Unpriced, match="depends on whether there are videos"):
        quote(model, model.example)


def test_o3_4k_of_five_seconds_costs_two_dollars_ten():
    five = ordered(f"{KLING}/o3/4k/text-to-video", duration="5")

    assert five.amount == Decimal("2.10")
    assert five.price.per_second == Decimal("0.42")
    assert five.verified


def test_v1_pro_is_priced_by_its_sibling_and_says_so():
    ten = ordered(f"{KLING}/v1/pro/text-to-video", duration="10")

    assert ten.amount == Decimal("1.00")
    assert not ten.verified
    assert ten.note is not None
    assert "1.5 Pro" in ten.note
    assert "estimated" in ten.source


@pytest.mark.parametrize("model", PRICED, ids=lambda model: model.id)
def test_a_price_says_where_it_comes_from_and_whether_it_is_verified(model):
    example = quote(model, model.example)

    assert example.verified is (model.id not in UNVERIFIED)
    assert "20" in example.source or "undated" in example.source
    assert example.verified or example.note


def test_shots_are_charged_by_their_sum_whatever_duration_says():
    shots = [{"prompt": "a", "duration": "3"}, {"prompt": "b"}, {"prompt": "c", "duration": "4"}]
    model = named(f"{KLING}/o3/4k/text-to-video")

    summed = quote(model, {"multi_prompt": shots, "duration": "15"})

    assert (summed.basis, summed.seconds) == (Basis.SHOTS, Decimal(12))
    assert summed.amount == Decimal("5.04")


def test_a_followed_video_without_a_duration_is_quoted_at_the_longest():
    model = named(f"{KLING}/o3/pro/video-to-video/reference")

    most = quote(model, {"prompt": "a", "video_url": "https://example.com/a.mp4"})

    assert (most.basis, most.seconds, most.is_maximum) == (Basis.INPUT_VIDEO, Decimal(15), True)


@pytest.mark.parametrize(
    ("name", "measured", "charged"),
    [
        ("o1/video-to-video/edit", "7.5", "7.5"),
        ("o1/video-to-video/edit", "1", "3"),
        ("o1/video-to-video/edit", "99", "10.05"),
        ("o1/video-to-video/edit", "0", "10.05"),
        ("o1/video-to-video/edit", None, "10.05"),
        ("lipsync/audio-to-video", "3", "5"),
        ("lipsync/audio-to-video", "5", "5"),
        ("lipsync/audio-to-video", "5.01", "10"),
    ],
)
def test_the_measured_length_counts_where_the_quote_was_a_maximum(name, measured, charged):
    model = named(f"{KLING}/{name}")

    length = settled(quote(model, model.example), measured and Decimal(measured))

    assert length == Decimal(charged)


@settings(deadline=None)
@given(st.sampled_from(PRICED), st.decimals(0, 1000, places=3) | st.none())
def test_no_measurement_is_charged_beyond_the_quote(model, measured):
    quoted = quote(model, model.example)

    seconds = settled(quoted, measured)

    assert 0 < seconds <= quoted.seconds
    assert 0 <= video_cost(seconds, quoted.price) <= quoted.amount


@pytest.mark.parametrize("model", PRICED, ids=lambda model: model.id)
def test_every_length_on_offer_has_an_exact_price_that_grows_with_it(model):
    duration = model.input_schema["properties"].get("duration", {})
    lengths = duration.get("enum") or list(range(duration.get("minimum", 0), duration.get("maximum", -1) + 1))
    plain = {name: part for name, part in model.example.items() if name != "multi_prompt"}

    quotes = [quote(model, {**plain, "duration": length}) for length in lengths]

    amounts = [one.amount for one in quotes]
    assert [one.seconds for one in quotes] == [Decimal(length) for length in lengths]
    assert all(amount > 0 for amount in amounts)
    assert all(amount == amount.quantize(SMALLEST) for amount in amounts)
    assert all(less < more for less, more in pairwise(amounts))


SHOTS = st.lists(st.integers(1, 15), min_size=1, max_size=6).filter(lambda lengths: 3 <= sum(lengths) <= 15)
WITH_SHOTS = [
    model for model in PRICED if "multi_prompt" in model.input_schema["properties"] and "kling-video" in model.id
]


@settings(deadline=None)
@given(st.sampled_from(WITH_SHOTS), SHOTS, st.booleans())
def test_shots_cost_what_one_video_of_their_length_costs(model, lengths, sound):
    kept = {name: part for name, part in model.example.items() if name not in {"prompt", "multi_prompt"}}
    if "generate_audio" in model.input_schema["properties"]:
        kept["generate_audio"] = sound
    shots = [{"prompt": "a", "duration": str(length)} for length in lengths]

    by_shots = quote(model, {**kept, "multi_prompt": shots})
    as_one = quote(model, {**kept, "prompt": "a", "duration": str(sum(lengths))})

    assert model.faults({**kept, "multi_prompt": shots}) == []
    assert by_shots.amount == as_one.amount
    assert by_shots.basis is Basis.SHOTS
