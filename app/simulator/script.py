"""
What one request goes through when it shouldn't simply succeed.

A script comes in one of three ways: the header `X-Simulator-Script: {"lost_answer": true, "webhook": "never"}`,
a marker in the prompt `[[sim: lost_answer, webhook=never]]` (a gateway hands on prompts but not headers), or
`PUT /simulator/script` for the next submits. A word nobody knows is refused with 400: a fault that a test
asked for and silently didn't get would let the test pass.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Self

from app.simulator.errors import OUTCOMES

MARKER: Final = re.compile(r"\[\[\s*sim:(.*?)\]\]", re.DOTALL)
REFUSALS: Final = frozenset(
    {"401", "403", "404", "408", "409", "429", "500", "502", "503", "504", "locked", "unknown_app", "nginx"}
)
DELIVERIES: Final = frozenset({"ok", "forged", "unknown_key", "old", "future", "unsigned", "tampered", "foreign"})


class BadScript(ValueError):
    """The script has a word or a value that the simulator doesn't know."""


def _flag(value: Any) -> bool:
    if str(value).lower() in {"", "1", "true", "yes"}:
        return True
    if str(value).lower() in {"0", "false", "no"}:
        return False
    raise ValueError


def _one_of(*words: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if str(value) not in words:
            raise ValueError
        return str(value)

    return read


def _not_negative(value: Any) -> float:
    if (number := float(value)) < 0:
        raise ValueError
    return number


def _deliveries(value: Any) -> tuple[str, ...]:
    """`forged+ok*3` → forged, ok, ok, ok. `early` and `late` are about when, and stay in the list."""
    words = list(value) if isinstance(value, list | tuple) else str(value).split("+")
    plan: list[str] = []
    for word in words:
        name, _, times = str(word).strip().partition("*")
        if name == "twice":
            plan += ["ok", "ok"]
        elif name in DELIVERIES | {"early", "late", "never"}:
            plan += [name] * int(times or 1)
        else:
            raise ValueError
    return tuple(plan)


@dataclass(frozen=True, slots=True)
class Script:
    """One request's fate. Without a word said, it succeeds."""

    # The answer to the submit.
    lost_request: bool = False
    lost_answer: bool = False
    slow_answer_s: float = 0.0
    refuse: str = ""
    answer: int = 0
    times: int = 0
    """How often the faults above befall the same order; 0 = always."""

    # The wait and the run.
    queue_s: float | None = None
    run_s: float | None = None
    stuck: str = ""
    retries: int = 0
    cancel: str = "finish"

    # The end.
    outcome: str = "ok"
    video_s: float | None = None
    """Length of the delivered video, when it isn't what was ordered."""
    billed: Decimal | None = None
    billing_s: float | None = None
    """Seconds until the billing event shows; infinity = never."""
    result_s: float | None = None
    file_s: float | None = None
    pad: int = 0
    """Bytes added to the result's body: from 10 KB up fal keeps it for 6 minutes only."""
    read_errors: int = 0

    # The webhooks.
    webhook: tuple[str, ...] = ("ok",)
    early: bool = False
    webhook_s: float = 0.0
    said_webhook: bool = False

    @classmethod
    def read(cls, words: Mapping[str, Any]) -> Self:
        """The script that *words* spell, or BadScript naming the first wrong one."""
        told: dict[str, Any] = {}
        for word, value in words.items():
            try:
                told[word] = READERS[word](value)
            except (KeyError, ValueError, TypeError, InvalidOperation):
                raise BadScript(f"simulator: {word}={value!r} is not something a script can say") from None
        if "webhook" in told:
            plan = told["webhook"]
            told["said_webhook"] = True
            told["early"] = "early" in plan
            if told["early"]:
                told = {"queue_s": 0.0, "run_s": 0.0} | told
            if "late" in plan:
                told.setdefault("webhook_s", 60.0)
            if plan in {("early",), ("late",)}:
                plan = ("ok",)
            told["webhook"] = tuple(word for word in plan if word in DELIVERIES)
        return cls(**told)


READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "lost_request": _flag,
    "lost_answer": _flag,
    "slow_answer_s": _not_negative,
    "refuse": _one_of(*REFUSALS),
    "answer": int,
    "times": int,
    "queue_s": _not_negative,
    "run_s": _not_negative,
    "stuck": _one_of("queue", "run"),
    "retries": int,
    "cancel": _one_of("finish", "stop", "stop_billed"),
    "outcome": _one_of(*OUTCOMES),
    "video_s": _not_negative,
    "billed": Decimal,
    "billing_s": lambda value: float("inf") if value == "never" else _not_negative(value),
    "result_s": _not_negative,
    "file_s": _not_negative,
    "pad": int,
    "read_errors": int,
    "webhook": _deliveries,
    "webhook_s": _not_negative,
}


def from_header(text: str) -> dict[str, Any]:
    """The words of an `X-Simulator-Script` header."""
    try:
        words = json.loads(text)
    except ValueError:
        words = None
    if not isinstance(words, dict):
        raise BadScript("simulator: X-Simulator-Script must be a JSON object")
    return words


def from_prompt(body: bytes) -> dict[str, Any]:
    """The words of the first marker in *body*, wherever a prompt stands in it; none is an empty script."""
    if b"[[" not in body or (found := MARKER.search(body.decode("utf-8", "replace"))) is None:
        return {}
    words: dict[str, Any] = {}
    for part in found.group(1).split(","):
        name, _, value = part.strip().partition("=")
        if name.strip():
            words[name.strip()] = value.strip()
    return words
