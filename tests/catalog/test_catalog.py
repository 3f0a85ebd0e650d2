"""The catalog holds every Kling endpoint that makes a video, each with a sound schema and an example."""

import json
from typing import Any

import jsonschema_rs
import pytest

from app.catalog.catalog import load
from app.catalog.schema import DIALECT

CATALOG = load()


def subschemas(schema: Any):
    """*schema* and every schema inside it."""
    if isinstance(schema, dict):
        yield schema
        for inner in [*schema.get("properties", {}).values(), schema.get("items")]:
            yield from subschemas(inner)


@pytest.fixture(params=CATALOG.models, ids=lambda model: model.id)
def model(request):
    return request.param


def test_input_schema_is_valid_and_complete(model):
    assert model.input_schema["$schema"] == DIALECT
    assert jsonschema_rs.meta.is_valid(model.input_schema)
    assert "$ref" not in json.dumps(model.input_schema)


def test_example_is_taken(model):
    assert model.faults(model.example) == []


def test_defaults_are_values_the_schema_takes(model):
    for schema in subschemas(model.input_schema):
        if "default" in schema:
            assert jsonschema_rs.is_valid(schema, schema["default"])


def test_filling_in_defaults_leaves_the_callers_input_alone(model):
    before = json.dumps(model.example)

    filled = model.filled(model.example)

    assert json.dumps(model.example) == before
    assert model.faults(filled) == []
    assert filled.items() >= {k: v for k, v in model.example.items() if not isinstance(v, list)}.items()


def test_unknown_fields_are_refused_except_where_the_input_is_not_fully_known(model):
    codes = [fault.code for fault in model.faults({**model.example, "surprise": 1})]

    assert codes == ([] if model.id.startswith("kling/v4/") else ["unknown_field"])


def test_a_duration_is_text_everywhere_but_in_kling_4(model):
    duration = model.input_schema["properties"].get("duration")

    if duration is not None:
        assert duration["type"] == ("integer" if model.id.startswith("kling/v4/") else "string")


def test_an_unpriced_model_says_why():
    unpriced = [model for model in CATALOG.models if model.price is None]

    assert [model.id for model in unpriced] == ["kling/v4/reference-to-video"]
    assert unpriced[0].note is not None


def test_models_are_found_by_their_whole_id():
    assert CATALOG.get("fal-ai/kling-video/o3/4k/text-to-video") is not None
    assert CATALOG.get("kling/v4/text-to-video") is not None
    assert CATALOG.get("kling-video/o3/4k/text-to-video") is None


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("kling-video/o3/4k/text-to-video", "fal-ai/kling-video/o3/4k/text-to-video"),
        ("/fal-ai/kling-video/o3/4k/text-to-video/", "fal-ai/kling-video/o3/4k/text-to-video"),
        ("fal-ai/kling-video/o3/4k/text-2-video", "fal-ai/kling-video/o3/4k/text-to-video"),
        ("fal-ai/kling/v4/text-to-video", "kling/v4/text-to-video"),
    ],
)
def test_an_unknown_id_is_told_what_was_probably_meant(asked, meant):
    assert meant in CATALOG.close_to(asked)


@pytest.mark.parametrize("asked", ["", "/", "zzz", "x" * 100_000])
def test_nonsense_is_close_to_nothing(asked):
    assert CATALOG.close_to(asked) == []
