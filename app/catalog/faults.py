"""What is wrong with an input, by its schema."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from typing import Any, Final

from jsonschema_rs import ValidationError, Validator

from app.catalog.sendable import unsendable
from app.catalog.wording import NAME, InputFault, code, listed, pointer, says

MOST_FAULTS: Final = 100


def find(validator: Validator, schema: Mapping[str, Any], value: Any) -> list[InputFault]:
    """Everything *schema* has against *value*, in the order it was found."""
    if unreadable := list(islice(unsendable(value), MOST_FAULTS)):
        return unreadable
    # Most inputs are good, and to say so takes the validator less than to look for what to say.
    if validator.is_valid(value):
        return []
    told = (fault for error in validator.iter_errors(value) for fault in _told(error, schema))
    found = list(dict.fromkeys(islice(told, MOST_FAULTS)))
    # A number where text belongs breaks every other rule of the field too; once is enough.
    mistyped = {fault.pointer for fault in found if fault.code == "wrong_type"}
    return [fault for fault in found if fault.code == "wrong_type" or fault.pointer not in mistyped]


def _told(error: ValidationError, schema: Mapping[str, Any]) -> Iterator[InputFault]:
    keyword, value, path = error.kind.name, error.kind.value, error.instance_path
    rules = _rules(schema, error.schema_path)
    if keyword == "required":
        yield InputFault(pointer([*path, value]), "missing", f"{value} is required.")
    elif keyword in {"additionalProperties", "unevaluatedProperties"}:
        yield from (_unknown(path, name, rules) for name in value)
    elif keyword in {"anyOf", "oneOf"} and (branch := _meant(error)):
        for inner in branch:
            yield from _told(inner, schema)
    else:
        subject = str(path[-1]) if path and isinstance(path[-1], str) else "This"
        must = says(keyword, value, rules, absent=error.instance is None)
        yield InputFault(pointer(path), code(keyword), f"{subject} {must}.")


def _rules(schema: Mapping[str, Any], path: Sequence[str | int]) -> Mapping[str, Any]:
    """The part of *schema* that the keyword at *path* stands in."""
    part: Any = schema
    for step in path[:-1]:
        try:
            part = part[step]
        except (KeyError, IndexError, TypeError):
            return {}
    return part if isinstance(part, Mapping) else {}


def _unknown(path: Sequence[str | int], name: str, rules: Mapping[str, Any]) -> InputFault:
    known = list(rules.get("properties", {}))
    if not NAME.fullmatch(name):
        return InputFault(
            pointer(path), "unknown_field", f"A field here has a name that isn't one of: {listed(known)}."
        )
    # What has to be given is what was most likely meant.
    near = sorted(close_names(name, known), key=lambda other: other not in rules.get("required", []))
    hint = f"did you mean {' or '.join(near)}?" if near else f"it takes {listed(known)}."
    return InputFault(pointer([*path, name]), "unknown_field", f"{name} isn't a field here; {hint}")


def close_names(name: str, known: Sequence[str]) -> list[str]:
    """Those of *known* that *name* was probably meant to be, at most three."""
    near = get_close_matches(name, known, n=3)
    return near or [other for other in known if name in other or other in name][:3]


def _meant(error: ValidationError) -> list[ValidationError] | None:
    """The one alternative whose type fits: fal writes an optional field as "this or null"."""
    fitting = [
        branch
        for branch in error.kind.value
        if not any(inner.kind.name == "type" and inner.instance_path == error.instance_path for inner in branch)
    ]
    return fitting[0] if len(fitting) == 1 else None
