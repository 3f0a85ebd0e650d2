"""Input schemas: put together from shared fragments, compiled, and their defaults filled in."""

from collections.abc import Mapping
from typing import Any, Final

import jsonschema_rs

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
FRAGMENT: Final = "#/$defs/"
# What may stand beside a $ref: it says more about the field without changing what it takes.
BESIDE: Final = frozenset({"default", "title", "description", "examples", "deprecated"})


class SchemaError(Exception):
    """A schema can't be put together."""


def complete(schema: Mapping[str, Any], fragments: Mapping[str, Any], title: str) -> dict[str, Any]:
    """*schema* with every reference into *fragments* replaced, ready to publish and to compile."""
    # The caller pays for every order, and what fal does with a field it doesn't know isn't established:
    # unknown fields are refused unless the schema says otherwise.
    usual = {"$schema": DIALECT, "title": title, "type": "object", "additionalProperties": False}
    return {**usual, **_inlined(schema, fragments, ())}


def compiled(schema: Mapping[str, Any]) -> jsonschema_rs.Validator:
    """The validator of *schema*; it refuses a schema that isn't valid 2020-12 itself."""
    # Masked, so that even a message we never show can't quote an input.
    return jsonschema_rs.Draft202012Validator(dict(schema), mask="the value")


def with_defaults(schema: Mapping[str, Any], value: Any) -> Any:
    """*value* with what *schema* assumes where something was left out; *value* itself stays as it is."""
    if isinstance(value, list) and "items" in schema:
        return [with_defaults(schema["items"], item) for item in value]
    if not isinstance(value, dict):
        return value
    fields: Mapping[str, Any] = schema.get("properties", {})
    filled = {name: with_defaults(fields.get(name, {}), item) for name, item in value.items()}
    assumed = {name: rules["default"] for name, rules in fields.items() if "default" in rules and name not in value}
    return {**filled, **assumed}


def _inlined(node: Any, fragments: Mapping[str, Any], within: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        return [_inlined(item, fragments, within) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" not in node:
        return {key: _inlined(item, fragments, within) for key, item in node.items()}
    return {
        **_referred(node, fragments, within),
        **{key: item for key, item in node.items() if key != "$ref"},
    }


def _referred(node: Mapping[str, Any], fragments: Mapping[str, Any], within: tuple[str, ...]) -> Any:
    reference = str(node["$ref"])
    name = reference.removeprefix(FRAGMENT)
    if not reference.startswith(FRAGMENT) or name not in fragments:
        raise SchemaError(f"{reference} isn't one of this file's $defs.")
    if name in within:
        raise SchemaError(f"{reference} refers back to itself.")
    if extra := node.keys() - BESIDE - {"$ref"}:
        raise SchemaError(
            f"beside {reference} only {', '.join(sorted(BESIDE))} may stand, not {', '.join(sorted(extra))}."
        )
    return _inlined(fragments[name], fragments, (*within, name))
