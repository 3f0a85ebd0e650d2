"""Model files: operators add their own, and every fault of a file is told in plain words."""

import json
from decimal import Decimal
from typing import Any

import pytest

from app.catalog.catalog import load
from app.catalog.reading import CatalogError


def family(**changes: Any) -> dict[str, Any]:
    """A family of one model, with *changes*."""
    return {
        "family": "veo",
        "$defs": {"prompt": {"type": "string"}},
        "inputs": {
            "text": {
                "schema": {
                    "required": ["prompt"],
                    "properties": {
                        "prompt": {"$ref": "#/$defs/prompt"},
                        "duration": {"type": "string", "enum": ["4", "8"], "default": "4"},
                    },
                },
                "example": {"prompt": "A boat."},
            }
        },
        "prices": {
            "usual": {
                "rates": [{"per_second": "0.50"}],
                "seconds_from": ["duration"],
                "source": "contract of 2026-10-01",
                "verified": True,
            }
        },
        "models": [{"id": "acme/veo", "title": "Veo", "kind": "text-to-video", "input": "text", "price": "usual"}],
    } | changes


def price(**changes: Any) -> dict[str, Any]:
    """A family whose price has *changes*."""
    return family(prices={"usual": family()["prices"]["usual"] | changes})


def taking(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A family whose input has these *properties*."""
    return family(inputs={"text": {"schema": {"properties": properties}, "example": {}} | more})


def faults(folder, content: Any) -> list[str]:
    """What is wrong with *content* as an operator's file."""
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "mine.json").write_text(text)
    with pytest.raises(CatalogError) as raised:
        load(extra=folder)
    assert all(fault in str(raised.value) for fault in raised.value.faults)
    return raised.value.faults


def test_operators_add_models(tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps(family()))

    catalog = load(extra=tmp_path)

    assert len(catalog.models) == len(load().models) + 1
    added = catalog.get("acme/veo")
    assert added is not None
    assert added.price is not None
    assert added.price.rates[0].price.per_second == Decimal("0.50")
    assert [fault.pointer for fault in added.faults({"duration": "5"})] == ["/duration", "/prompt"]


def test_operators_override_a_price(tmp_path):
    name = "fal-ai/kling-video/o3/4k/text-to-video"
    mine = family(models=[family()["models"][0] | {"id": name}])
    (tmp_path / "mine.json").write_text(json.dumps(mine))

    catalog = load(extra=tmp_path)

    assert len(catalog.models) == len(load().models)
    model = catalog.get(name)
    assert model is not None
    assert model.family == "veo"


def test_a_folder_can_stand_in_for_ours(tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps(family()))

    assert [model.id for model in load(tmp_path).models] == ["acme/veo"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("{", "mine.json: isn't a readable JSON file"),
        ([], "mine.json : This must be an object."),
        ({}, "mine.json /family: family is required."),
        (family(model=[]), "mine.json /model: model isn't a field here; did you mean models?"),
        (
            price(rates=[{"per_second": 0.5}]),
            "/prices/usual/rates/0/per_second: per_second must be text in quotes.",
        ),
        (
            price(rates=[{"per_second": "-1"}]),
            "/prices/usual/rates/0/per_second: per_second must match the pattern",
        ),
        (
            price(rates=[{"per_second": "1", "when": {"duration": "4"}}]),
            "the last rate must have no conditions",
        ),
        (
            price(rates=[{"per_second": "1", "when": {"audio": True}}, {"per_second": "2"}]),
            "a rate depends on audio, which isn't a field of the input.",
        ),
        (
            price(seconds_from=["shots", "duration"]),
            "seconds are counted from shots, but the input has no multi_prompt.",
        ),
        (price(seconds_from=["input_video"]), "every rate needs max_seconds."),
        (
            price(
                seconds_from=["input_video"],
                rates=[{"per_second": "1", "min_seconds": "9", "max_seconds": "3"}],
            ),
            "min_seconds is more than its max_seconds.",
        ),
        (taking({"duration": {"type": "string"}}), "leave out everything the seconds are counted from"),
        (
            taking({"duration": {"type": "string", "default": 5}}),
            "the default of /duration isn't a value it takes.",
        ),
        (taking({"duration": {"$ref": "#/$defs/length"}}), "#/$defs/length isn't one of this file's $defs."),
        (taking({"duration": {"$ref": "#/$defs/prompt", "maxLength": 3}}), "may stand, not maxLength."),
        (taking({"duration": {"type": "strin"}}), "mine.json acme/veo: "),
        (taking({"duration": {"default": "4"}}, example={"x": 1}), "the example's /x: x isn't a field"),
        (
            taking({"duration": {"default": "4"}}, checks={"luck": {}}),
            "there is no check luck; there are prompt_xor",
        ),
        (
            taking({"duration": {"default": "4"}}, checks={"shots_sum": {"most": 9}}),
            "missing a required argument: 'least'",
        ),
        (family(models=[family()["models"][0] | {"input": "txt"}]), "this file has no 'txt'."),
        (family(models=[family()["models"][0] | {"price": "txt"}]), "this file has no 'txt'."),
        (family(models=[family()["models"][0] | {"price": None}]), "needs a note that says why."),
        (family(models=[family()["models"][0]] * 2), "acme/veo is there twice."),
        (family(models=[family()["models"][0] | {"id": "veo"}]), "/models/0/id: id must match the pattern"),
    ],
)
def test_a_faulty_file_is_told_in_plain_words(tmp_path, content, fault):
    assert any(fault in told for told in faults(tmp_path, content))


def test_fragments_that_go_in_circles_are_told(tmp_path):
    circle = family(**{"$defs": {"prompt": {"items": {"$ref": "#/$defs/prompt"}}}})

    assert faults(tmp_path, circle) == ["mine.json acme/veo: #/$defs/prompt refers back to itself."]


def test_every_fault_of_every_file_is_told_at_once(tmp_path):
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "other.json").write_text(json.dumps(price(seconds_from=["input_video"])))

    told = faults(tmp_path, family(models=[family()["models"][0] | {"price": None, "id": "acme/sora"}]))

    assert len(told) == 3


def test_an_empty_folder_is_a_fault(tmp_path):
    with pytest.raises(CatalogError, match="there are no model files"):
        load(extra=tmp_path)
