"""The files that a model's output names, and how long they may still be there (pure)."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

DEEPEST: Final = 4
MOST_FILES: Final = 64
KEPT_FOR: Final = timedelta(days=7)
"""What fal promises at least, where an address doesn't say how long it works."""


@dataclass(frozen=True, slots=True)
class File:
    """A file in an output: the name it stands under, its address, and what it is said to be."""

    under: str
    url: str
    content_type: str | None


def files(output: Any) -> list[File]:
    """Every `{"url": …}` in *output*, each address once, the least deep first."""
    found: dict[str, File] = {}
    for file in _walk(output):
        found.setdefault(file.url, file)
        if len(found) == MOST_FILES:
            break
    return list(found.values())


def video_url(output: Any) -> str | None:
    """The address of the video in *output*, or None."""
    return next((file.url for file in _walk(output) if file.under == "video"), None)


def vanishes_at(url: str, now: datetime) -> datetime:
    """When the file at *url* is likely gone: an address may carry its own end, else what fal promises counts."""
    longest = now + KEPT_FOR
    try:
        said = parse_qs(urlsplit(url).query)
        if "Expires" in said:
            ends = datetime.fromtimestamp(int(said["Expires"][0]), UTC)
        elif "X-Amz-Expires" in said or "X-Goog-Expires" in said:
            kind = "X-Amz" if "X-Amz-Expires" in said else "X-Goog"
            signed = datetime.strptime(said[f"{kind}-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            ends = signed + timedelta(seconds=int(said[f"{kind}-Expires"][0]))
        else:
            return longest
    except (ValueError, KeyError, OverflowError, OSError):
        return longest
    return max(now, min(ends, longest))


def _walk(output: Any) -> Iterator[File]:
    waiting: deque[tuple[str, Any, int]] = deque([("", output, 0)])
    while waiting:
        under, value, depth = waiting.popleft()
        match value:
            case {"url": str(url)} if url.lower().startswith(("http://", "https://")):
                kind = value.get("content_type")
                yield File(under, url, kind if isinstance(kind, str) else None)
        if depth > DEEPEST:
            continue
        if isinstance(value, dict):
            waiting.extend((str(name), inner, depth + 1) for name, inner in value.items())
        elif isinstance(value, list):
            # A file in a list stands under the list's own name.
            waiting.extend((under, inner, depth + 1) for inner in value)
