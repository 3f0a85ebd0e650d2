"""
Rules an input schema can't say, by the names under which model files ask for them.

A check sees the input with its defaults. It may be malformed in ways the schema has already reported,
so a check passes over what it can't read instead of failing.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from app.catalog.wording import InputFault, pointer

Input = Mapping[str, Any]
SECONDS: Final = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")


def given(value: Any) -> bool:
    """Whether *value* says anything: null and empty count as left out."""
    return value is not None and value not in ("", [], {})


def values_at(value: Any, path: str) -> Iterator[Any]:
    """What stands at *path* ("generate_audio", "elements/*/voice_id"); a star is every item of a list."""
    step, _, rest = path.partition("/")
    items = value if step == "*" and isinstance(value, list) else []
    if isinstance(value, dict) and step in value:
        items = [value[step]]
    for item in items:
        yield from values_at(item, rest) if rest else [item]


def shots_seconds(value: Input) -> Decimal | None:
    """The seconds of all shots together; None if there are no shots or their lengths can't be read."""
    shots = value.get("multi_prompt")
    if not given(shots) or not isinstance(shots, list):
        return None
    lengths = [seconds(shot.get("duration")) for shot in shots if isinstance(shot, dict)]
    known = [length for length in lengths if length is not None]
    return sum(known, Decimal(0)) if len(known) == len(shots) else None


def seconds(value: Any) -> Decimal | None:
    """*value* as an exact number of seconds, if it is one."""
    if isinstance(value, str):
        return Decimal(value) if SECONDS.fullmatch(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value) if 0 <= value <= 999_999 else None
    return None


def prompt_xor_multi_prompt(value: Input) -> Iterator[InputFault]:
    """Exactly one of prompt and multi_prompt."""
    prompt, shots = given(value.get("prompt")), given(value.get("multi_prompt"))
    if prompt and shots:
        yield InputFault("/multi_prompt", "conflict", "Give prompt or multi_prompt, not both.")
    elif not prompt and not shots:
        yield InputFault("/prompt", "missing", "Give a prompt, or multi_prompt with a prompt for each shot.")


def shots_sum(value: Input, *, least: int, most: int) -> Iterator[InputFault]:
    """All shots together are *least* to *most* seconds long."""
    total = shots_seconds(value)
    if total is not None and not least <= total <= most:
        detail = f"The shots' durations must add up to {least} to {most} seconds."
        yield InputFault("/multi_prompt", "shots_sum", detail)


def references_at_most(value: Input, *, most: int, with_video: int | None = None) -> Iterator[InputFault]:
    """At most *most* images and elements together, or *with_video* if one of the elements is a video."""
    if with_video is not None and any(map(given, values_at(value, "elements/*/video_url"))):
        most = with_video
    lists = [value.get("image_urls"), value.get("elements")]
    if sum(len(items) for items in lists if isinstance(items, list)) > most:
        yield InputFault("/elements", "too_many", f"image_urls and elements may have at most {most} items together.")


def one_video_element(value: Input) -> Iterator[InputFault]:
    """At most one element brings a video."""
    elements = value.get("elements")
    brought = [
        place
        for place, element in enumerate(elements if isinstance(elements, list) else [])
        if isinstance(element, dict) and given(element.get("video_url"))
    ]
    for place in brought[1:]:
        where = pointer(["elements", place, "video_url"])
        yield InputFault(where, "too_many", "Only one element of a request can have a video.")


def only_when(value: Input, *, field: str, when: dict[str, Any]) -> Iterator[InputFault]:
    """*field* is given only if the fields in *when* have these values."""
    unmet = {name: wanted for name, wanted in when.items() if value.get(name) != wanted}
    if given(value.get(field)) and unmet:
        needs = " and ".join(f'{name} is "{wanted}"' for name, wanted in unmet.items())
        yield InputFault(pointer([field]), "conflict", f"{field} can only be given when {needs}.")


CHECKS: Final[Mapping[str, Callable[..., Iterator[InputFault]]]] = {
    check.__name__: check
    for check in (prompt_xor_multi_prompt, shots_sum, references_at_most, one_video_element, only_when)
}


def misuse(name: str, settings: Mapping[str, Any]) -> str | None:
    """What is wrong with asking for check *name* with these *settings*, if anything."""
    check = CHECKS.get(name)
    if check is None:
        return f"there is no check {name}; there are {', '.join(CHECKS)}."
    try:
        inspect.signature(check).bind({}, **settings)
    except TypeError as wrong:
        return f"check {name}: {wrong}."
    return None
