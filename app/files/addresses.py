"""Where an input names files: our own addresses, data: URIs, and how both are swapped for others (pure)."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID

PREFIX: Final = "callsheet://files/"
# Nothing that a prompt would begin with: a type or a parameter, and no blank before the comma.
DATA: Final = re.compile(r"data:(?:[\w.+-]+/[\w.+-]+|;)[^\s,]{0,200},", re.IGNORECASE)


class Place(NamedTuple):
    """A text in an input, and where it stands as a JSON Pointer."""

    pointer: str
    text: str


def url_of(file_id: UUID) -> str:
    """The address of a file, to be used in a job's input."""
    return f"{PREFIX}{file_id}"


def id_in(text: str) -> UUID | None:
    """The id of the file that *text* names; None if it isn't one of our addresses, to the letter."""
    try:
        found = UUID(text.removeprefix(PREFIX))
    except ValueError:
        return None
    return found if text == url_of(found) else None


def own(value: Any) -> list[Place]:
    """The places in *value* with an address of ours, well-formed or not."""
    return [place for place in _texts(value) if place.text.startswith(PREFIX)]


def ids(value: Any) -> set[UUID]:
    """The files that *value* names."""
    return {found for place in own(value) if (found := id_in(place.text)) is not None}


def data_uris(value: Any) -> list[Place]:
    """The places in *value* with a data: URI."""
    return [place for place in _texts(value) if DATA.match(place.text)]


def any_in(value: Any) -> bool:
    """Whether *value* names a file or brings one."""
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, str):
            if part.startswith(PREFIX) or DATA.match(part):
                return True
        elif isinstance(part, dict | list):
            left.extend(part.values() if isinstance(part, dict) else part)
    return False


def swapped(value: Any, others: Mapping[str, str]) -> Any:
    """*value* with each text that is a key of *others* swapped for what stands there."""
    if isinstance(value, str):
        return others.get(value, value)
    if isinstance(value, list):
        return [swapped(item, others) for item in value]
    if isinstance(value, dict):
        return {name: swapped(item, others) for name, item in value.items()}
    return value


def _texts(value: Any, pointer: str = "") -> Iterator[Place]:
    if isinstance(value, str):
        yield Place(pointer, value)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _texts(item, f"{pointer}/{number}")
    elif isinstance(value, dict):
        for name, item in value.items():
            step = str(name).replace("~", "~0").replace("/", "~1")
            yield from _texts(item, f"{pointer}/{step}")
