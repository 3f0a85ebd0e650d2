"""Endpoint ids: `owner/app[/sub/path]`, with `workflows` and `comfy` as namespaces before the owner."""

import re
from typing import Final

NAMESPACES: Final = frozenset({"workflows", "comfy"})
OLD_FORM: Final = re.compile(r"^(\d+)-([a-zA-Z0-9-]+)$")


def segments(path: str) -> list[str]:
    """The parts of an endpoint id or of a path that begins with one; `123-app` is the old form of `123/app`."""
    parts = [part for part in path.split("/") if part]
    if parts and (old := OLD_FORM.match(parts[0])):
        parts[:1] = old.groups()
    return parts


def app_of(parts: list[str]) -> str | None:
    """`owner/app`, with its namespace, that *parts* begin with; None if they're too few."""
    size = 3 if parts and parts[0] in NAMESPACES else 2
    return "/".join(parts[:size]) if len(parts) >= size else None
