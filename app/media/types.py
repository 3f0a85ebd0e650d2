"""What kind of file an output is, as it may be told to a browser (pure)."""

import re
from typing import Final

UNKNOWN: Final = "application/octet-stream"
# What a browser shows without running anything in it: a model's output must not become a page of ours.
SHOWABLE: Final = re.compile(r"(video|audio|image)/[a-z0-9][a-z0-9.+-]{0,60}")


def media_type(*said: str | None) -> str:
    """The first of *said* that names a video, sound or picture; else just bytes."""
    for text in said:
        kind = (text or "").partition(";")[0].strip().lower()
        if SHOWABLE.fullmatch(kind) and "svg" not in kind:
            return kind
    return UNKNOWN
