"""
How a fault is told: where it is, what kind it is, and how to mend it.

The words name a field and what it takes, never what was given: that may be a prompt, or megabytes
of base64.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any, Final, NamedTuple

MOST_LISTED: Final = 20
# A field's name is repeated only if it looks like one: a prompt can be pasted where a name belongs.
NAME: Final = re.compile(r"[A-Za-z0-9_.~/-]{1,64}")

TYPES: Final[Mapping[str, str]] = {
    "string": "text in quotes",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}

CODES: Final[Mapping[str, str]] = {
    "type": "wrong_type",
    "enum": "not_allowed",
    "const": "not_allowed",
    "pattern": "malformed",
    "format": "malformed",
    "minLength": "too_short",
    "maxLength": "too_long",
    "minimum": "too_small",
    "exclusiveMinimum": "too_small",
    "maximum": "too_large",
    "exclusiveMaximum": "too_large",
    "minItems": "too_few",
    "maxItems": "too_many",
}


class InputFault(NamedTuple):
    """One thing wrong with an input: where (a JSON Pointer), what kind, and how to mend it."""

    pointer: str
    code: str
    detail: str


def pointer(path: Sequence[str | int]) -> str:
    """*path* as a JSON Pointer (RFC 6901), as far as its names look like names."""
    named = takewhile(lambda part: NAME.fullmatch(str(part)), path)
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in named)


def code(keyword: str) -> str:
    """The stable word for breaking a schema's *keyword*."""
    return CODES.get(keyword, "invalid")


def says(keyword: str, value: Any, rules: Mapping[str, Any], *, absent: bool) -> str:
    """What a field must be, by the *keyword* it breaks, that keyword's *value* and the *rules* around it."""
    if keyword == "type":
        return _type_says(value, rules, absent=absent)
    if keyword == "pattern" and rules.get("format") == "uri":
        return "must be a web address (http:// or https://), the url of an uploaded file, or a data: URI"
    say = SAYINGS.get(keyword)
    return say(value) if say else "isn't in a form this field takes; see the model's input schema"


def _type_says(types: Sequence[str], rules: Mapping[str, Any], *, absent: bool) -> str:
    if absent:
        return "can't be null; leave it out instead"
    wanted = " or ".join(TYPES[kind] for kind in types if kind != "null")
    return f"must be {wanted}" + (f", one of {listed(rules['enum'])}" if "enum" in rules else "")


def listed(values: Sequence[Any]) -> str:
    """*values* in a row, the first twenty of them."""
    shown = ", ".join(f'"{value}"' if isinstance(value, str) else str(value).lower() for value in values[:MOST_LISTED])
    return shown + (f" and {len(values) - MOST_LISTED} more" if len(values) > MOST_LISTED else "")


SAYINGS: Final[Mapping[str, Callable[[Any], str]]] = {
    "enum": lambda allowed: f"must be one of {listed(allowed)}",
    "const": lambda only: f"must be {listed([only])}",
    "pattern": lambda form: f"must match the pattern {form}",
    "minLength": lambda least: "can't be empty" if least == 1 else f"must have at least {least} characters",
    "maxLength": lambda most: f"may have at most {most} characters",
    "minimum": lambda least: f"must be at least {least}",
    "exclusiveMinimum": lambda least: f"must be more than {least}",
    "maximum": lambda most: f"must be at most {most}",
    "exclusiveMaximum": lambda most: f"must be less than {most}",
    "minItems": lambda least: "can't be an empty list" if least == 1 else f"must have at least {least} items",
    "maxItems": lambda most: f"may have at most {most} items",
}
