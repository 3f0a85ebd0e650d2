"""An input's faults are all told at once, each in its place, none quoting what was given."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.catalog import faults, schema
from app.catalog.catalog import load
from app.catalog.model import Model
from app.catalog.wording import pointer

CATALOG = load()


def named(name: str) -> Model:
    """The model with this id."""
    model = CATALOG.get(name)
    assert model is not None
    return model


SECRET = "Zq7-a-prompt-nobody-may-see"
O3 = named("fal-ai/kling-video/o3/4k/text-to-video")
V3_IMAGE = named("fal-ai/kling-video/v3/pro/image-to-video")
MOTION = named("fal-ai/kling-video/v3/pro/motion-control")
O3_REFERENCE = named("fal-ai/kling-video/o3/pro/reference-to-video")
O1_EDIT = named("fal-ai/kling-video/o1/video-to-video/edit")
URL = "https://example.com/a.png"


def where(model, value):
    """The places and kinds of *value*'s faults."""
    return {(fault.pointer, fault.code) for fault in model.faults(value)}


def detail(model, value):
    """What the only fault of *value* says."""
    [fault] = model.faults(value)
    return fault.detail


def test_every_fault_is_told_at_once_and_in_its_place():
    value = {
        "image_url": URL,
        "end_image_url": "ftp://example.com/a.png",
        "prompt": "x" * 2501,
        "multi_prompt": [{"prompt": "a", "duration": "20"}, {"duration": 1, "mood": "dark"}],
        "duration": 5,
        "cfg_scale": 3,
        "generate_audio": "yes",
        "voice_ids": ["a", "b", "c"],
    }

    assert where(V3_IMAGE, value) == {
        ("/start_image_url", "missing"),
        ("/image_url", "unknown_field"),
        ("/end_image_url", "malformed"),
        ("/prompt", "too_long"),
        ("/multi_prompt", "conflict"),
        ("/multi_prompt", "shots_sum"),
        ("/multi_prompt/0/duration", "not_allowed"),
        ("/multi_prompt/1/prompt", "missing"),
        ("/multi_prompt/1/duration", "wrong_type"),
        ("/multi_prompt/1/mood", "unknown_field"),
        ("/duration", "wrong_type"),
        ("/cfg_scale", "too_large"),
        ("/generate_audio", "wrong_type"),
        ("/voice_ids", "too_many"),
    }


def test_a_numeric_duration_is_told_how_to_write_it():
    told = detail(O3, {"prompt": "a", "duration": 5})

    assert told.startswith('duration must be text in quotes, one of "3", "4", "5"')


def test_a_duration_out_of_range_is_told_what_is_allowed():
    told = detail(O3, {"prompt": "a", "duration": "16"})

    assert told.startswith('duration must be one of "3"')
    assert told.endswith('"15".')


def test_an_unknown_field_names_the_one_that_was_meant():
    told = detail(V3_IMAGE, {"start_image_url": URL, "image_url": URL, "prompt": "a"})

    assert told == "image_url isn't a field here; did you mean start_image_url or end_image_url?"


def test_a_field_unlike_any_other_lists_what_there_is():
    told = detail(O1_EDIT, {"prompt": "a", "video_url": URL, "zzz": 1})

    assert told == ('zzz isn\'t a field here; it takes "prompt", "video_url", "image_urls", "elements", "keep_audio".')


def test_a_pasted_prompt_is_not_repeated_as_a_fields_name():
    [fault] = O3.faults({"prompt": "a", f"{SECRET} and a space": 1})

    assert (fault.pointer, fault.code) == ("", "unknown_field")
    assert SECRET not in fault.detail


def test_null_is_told_to_be_left_out():
    assert detail(O3, {"prompt": "a", "duration": None}) == "duration can't be null; leave it out instead."


@pytest.mark.parametrize("address", ["http://example.com/a", "https://example.com/a", "data:image/png;base64,AAAA"])
def test_files_come_by_web_address_or_data_uri(address):
    assert where(V3_IMAGE, {"start_image_url": address, "prompt": "a"}) == set()


@pytest.mark.parametrize(
    "address", ["", "example.com/a.png", "file:///etc/passwd", "javascript:alert(1)", " https://a"]
)
def test_other_addresses_are_refused(address):
    assert where(V3_IMAGE, {"start_image_url": address, "prompt": "a"}) == {("/start_image_url", "malformed")}


@pytest.mark.parametrize("value", [None, 5, "text", []])
def test_an_input_that_is_no_object_is_refused(value):
    assert where(O3, value) == {("", "wrong_type")}


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"prompt": "half a pair: \ud800"}, "/prompt"),
        ({"prompt": "nothing: \x00"}, "/prompt"),
        ({"multi_prompt": [{"prompt": "a"}, {"prompt": "\x00"}]}, "/multi_prompt/1/prompt"),
        ({"prompt": "a", "cfg_scale": float("nan")}, "/cfg_scale"),
        ({"prompt": "a", "cfg_scale": float("inf")}, "/cfg_scale"),
        ({"prompt": "a", "\x00": 1}, ""),
    ],
)
def test_what_neither_postgres_nor_fal_can_take_is_refused(value, place):
    assert where(V3_IMAGE, value) == {(place, "unreadable")}


def test_nesting_without_end_is_refused_rather_than_crashing():
    deep: list[Any] = []
    for _ in range(50_000):
        deep = [deep]

    assert where(O3, {"prompt": "a", "multi_prompt": deep}) == {("/multi_prompt", "unreadable")}


def test_a_number_without_end_is_refused_rather_than_crashing():
    assert where(V3_IMAGE, {"start_image_url": URL, "prompt": "a", "cfg_scale": 10**400}) == {
        ("/cfg_scale", "too_large")
    }


def test_a_flood_of_faults_is_cut_off():
    flood = {f"field_{number}": 1 for number in range(10_000)}

    assert len(O3.faults({"prompt": "a", **flood})) == faults.MOST_FAULTS


def test_pointers_escape_what_rfc_6901_says():
    assert pointer(["a/b", 0, "m~n"]) == "/a~1b/0/m~0n"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, {("/prompt", "missing")}),
        ({"prompt": None, "multi_prompt": None}, {("/prompt", "missing")}),
        ({"prompt": "a", "multi_prompt": None}, set()),
        ({"multi_prompt": [{"prompt": "a"}]}, set()),
        ({"prompt": "a", "multi_prompt": [{"prompt": "a"}]}, {("/multi_prompt", "conflict")}),
        ({"multi_prompt": []}, {("/multi_prompt", "too_few"), ("/prompt", "missing")}),
        ({"multi_prompt": [{"prompt": "a", "duration": "2"}]}, {("/multi_prompt", "shots_sum")}),
        ({"multi_prompt": [{"prompt": "a"}] * 4}, {("/multi_prompt", "shots_sum")}),
        ({"multi_prompt": [{"prompt": "a", "duration": "1"}] * 6}, set()),
        ({"multi_prompt": [{"prompt": "a", "duration": "1"}] * 7}, {("/multi_prompt", "too_many")}),
    ],
)
def test_prompt_or_shots(value, expected):
    assert where(O3, value) == expected


def test_references_are_counted_together():
    element = {"frontal_image_url": URL}

    assert where(O3_REFERENCE, {"prompt": "a", "image_urls": [URL] * 4, "elements": [element] * 3}) == set()
    assert where(O3_REFERENCE, {"prompt": "a", "image_urls": [URL] * 4, "elements": [element] * 4}) == {
        ("/elements", "too_many")
    }
    assert where(O3_REFERENCE, {"prompt": "a", "image_urls": [URL] * 4, "elements": [{"video_url": URL}]}) == {
        ("/elements", "too_many")
    }


def test_only_one_element_brings_a_video():
    value = {"prompt": "a", "elements": [{"video_url": URL}, {"frontal_image_url": URL}, {"video_url": URL}]}

    assert where(O3_REFERENCE, value) == {("/elements/2/video_url", "too_many")}


def test_a_face_is_kept_only_with_the_videos_orientation():
    value = {"image_url": URL, "video_url": URL, "elements": [{"frontal_image_url": URL}]}

    assert where(MOTION, {**value, "character_orientation": "video"}) == set()
    assert where(MOTION, {**value, "character_orientation": "image"}) == {("/elements", "conflict")}


JUNK = st.recursive(
    st.just(SECRET) | st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["prompt", "duration", "video_url"]), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_fault_quotes_the_input(data):
    model = data.draw(st.sampled_from(CATALOG.models))
    fields = st.sampled_from([*model.input_schema["properties"], "surprise", SECRET + " "])
    value = {
        **data.draw(st.sampled_from([{}, dict(model.example)])),
        **data.draw(st.dictionaries(fields, JUNK)),
    }

    for fault in model.faults(value):
        assert SECRET not in fault.pointer + fault.detail
        assert fault.detail.endswith((".", "?"))
        assert fault.pointer == "" or fault.pointer.startswith("/")


def test_an_optional_field_as_fal_writes_it_is_told_by_its_real_type():
    optional = {"properties": {"image": {"anyOf": [{"type": "string", "maxLength": 3}, {"type": "null"}]}}}
    written = schema.complete(optional, {}, "A model")

    [fault] = faults.find(schema.compiled(written), written, {"image": SECRET})

    assert fault == ("/image", "too_long", "image may have at most 3 characters.")
