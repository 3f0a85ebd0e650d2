"""
One question to Callsheet, asked until it is answered (pure).

A Flow is a conversation written down once for both clients: it yields what to do, an Ask or a Pause, and is sent the
answer, or thrown what got lost on the way. Its value is what the caller wanted to know.
"""

import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import httpx

from app.client.errors import CallsheetError, Unreachable, refusal

T = TypeVar("T")

FIRST_S: Final = 0.5
SLOWEST_S: Final = 8.0
LONGEST_RETRY_AFTER_S: Final = 60.0
"""Who asks for more patience than this is told to the caller instead."""
PASSING: Final = frozenset({429, 500, 502, 503, 504})
"""Answers that may be others when asked again."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to send; *read_s* is how long its answer may be silent, in seconds."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    file: Path | bytes | None = None
    read_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Seconds to let pass."""

    seconds: float


Flow: TypeAlias = Generator[Ask | Pause, Any, T]


@dataclass(frozen=True, slots=True)
class Patience:
    """How often to ask again: *retries* times, or, where there is a moment *until*, as often as it takes."""

    retries: int
    until: float | None = None
    now: Callable[[], float] = time.monotonic

    def pause_s(self, tries: int, trouble: CallsheetError) -> float:
        """How long to wait after the failure of that many *tries*, in seconds. Raises *trouble* if it is over."""
        wanted = trouble.retry_after_s
        # Everyone who lost the same server comes back at a moment of their own.
        pause_s = wanted if wanted is not None else min(SLOWEST_S, FIRST_S * 2 ** (tries - 1)) * random.uniform(0.5, 1)  # noqa: S311
        over = tries > self.retries if self.until is None else self.now() + pause_s > self.until
        if over or pause_s > LONGEST_RETRY_AFTER_S:
            raise trouble
        return pause_s


def answered(ask: Ask, patience: Patience) -> Flow[httpx.Response]:
    """
    The answer to *ask*, a success or a redirect.

    Asks again while nobody answers or an answer may pass, so *ask* must bear being heard twice. Raises Unreachable, or
    the Refused that came.
    """
    tries = 0
    while True:
        tries += 1
        try:
            answer: httpx.Response = yield ask
        except httpx.TransportError as lost:
            trouble: CallsheetError = unreachable(ask, lost)
            if isinstance(lost, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
                raise trouble from lost
        else:
            if answer.status_code < 400:
                return answer
            trouble = refusal(answer)
            if answer.status_code not in PASSING:
                raise trouble
        yield Pause(patience.pause_s(tries, trouble))


def told(answer: httpx.Response) -> dict[str, Any]:
    """What *answer* says. Raises Unreachable if it isn't Callsheet's."""
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not answer.is_success or not isinstance(found, dict):
        raise stranger(answer)
    return found


def stranger(answer: httpx.Response) -> Unreachable:
    """The trouble with an *answer* that Callsheet doesn't give."""
    return Unreachable(f"What answers at {answer.url} ({answer.status_code}) isn't Callsheet.")


def unreachable(ask: Ask, lost: Exception) -> Unreachable:
    """The trouble with *ask*, to which *lost* happened."""
    return Unreachable(f"{ask.method} {ask.path} was not answered ({type(lost).__name__}).")
