"""The Range header: which bytes of a file are wanted (pure)."""

import re
from typing import Final

ONE: Final = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.IGNORECASE)


class Unsatisfiable(Exception):
    """None of the wanted bytes are in the file."""


def wanted(header: str | None, size: int) -> tuple[int, int] | None:
    """
    The first and the first unwanted byte that *header* asks of a file of *size* bytes; None is the whole file.

    Several ranges at once, and what isn't understood, get the whole file, as RFC 9110 allows. Raises
    Unsatisfiable where the file has none of it.
    """
    found = ONE.fullmatch((header or "").strip())
    if found is None or not any(found.groups()):
        return None
    first, last = found.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= end:
        raise Unsatisfiable
    return start, end
