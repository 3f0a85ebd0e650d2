"""What JSON in the wild can hold, but neither Postgres nor fal can take."""

import math
import re
from collections.abc import Iterator
from typing import Any, Final

from app.catalog.wording import InputFault, pointer

DEEPEST: Final = 50
# NUL, which Postgres can't store, and halves of surrogate pairs, which aren't Unicode text.
UNSENDABLE: Final = re.compile("[\x00\ud800-\udfff]")


def unsendable(value: Any) -> Iterator[InputFault]:
    """The places in *value* that can't be stored or sent on."""
    # A list of what is left to look at: recursion would end where a hostile nesting wants it to.
    left: list[tuple[list[str | int], Any]] = [([], value)]
    while left:
        path, part = left.pop()
        if len(path) > DEEPEST:
            yield InputFault(pointer(path[:1]), "unreadable", f"This is nested more than {DEEPEST} levels deep.")
            return
        if isinstance(part, str) and UNSENDABLE.search(part):
            detail = "This has characters that aren't text: NUL, or half of a surrogate pair."
            yield InputFault(pointer(path), "unreadable", detail)
        elif isinstance(part, float) and not math.isfinite(part):
            yield InputFault(pointer(path), "unreadable", "This must be a finite number.")
        elif isinstance(part, list):
            left.extend(([*path, place], item) for place, item in enumerate(part))
        elif isinstance(part, dict):
            if any(UNSENDABLE.search(name) for name in part):
                yield InputFault(pointer(path), "unreadable", "A field's name here has characters that aren't text.")
            else:
                left.extend(([*path, name], item) for name, item in part.items())
