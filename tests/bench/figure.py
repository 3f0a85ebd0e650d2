"""What a figure is, and how it is measured: our side and a rival's, in turns, within the same minutes."""

import math
import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

ROUNDS: Final = 3


class NotYet(Exception):
    """What it measures isn't built; the text says what is missing."""


class Omitted(Exception):
    """This machine lacks what it needs; the text says what."""


class Wrong(Exception):
    """Answers were wrong, or the database holds something else than was accepted: there is no number to report."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement, and what else was seen meanwhile."""

    value: float
    facts: dict[str, Any] = field(default_factory=dict)
    instead: str = ""
    """What was measured, where this machine can't measure what the figure names."""


Side = Callable[[Any], Awaitable[Sample]]


@dataclass(frozen=True, slots=True)
class Figure:
    """
    A number with a bound. With a rival, the bound is on ours ÷ theirs; without one, on ours.

    Exactly one of *at_least* and *at_most* is given.
    """

    key: str
    what: str
    against: str
    ours: Side
    theirs: Side | None = None
    at_least: float | None = None
    at_most: float | None = None


async def measured(figure: Figure, stage: Any, rounds: int = ROUNDS) -> dict[str, Any]:
    """The figure's entry of the report."""
    found: list[dict[str, Any]] = []
    state, why = "measured", None
    try:
        for _ in range(rounds):
            ours = await figure.ours(stage)
            theirs = await figure.theirs(stage) if figure.theirs else None
            found.append(_round(ours, theirs))
    except (NotYet, Omitted, Wrong) as stopped:
        state, why = {NotYet: "not yet", Omitted: "omitted", Wrong: "wrong"}[type(stopped)], str(stopped)
    except Exception as error:  # noqa: BLE001 - the other figures are still worth measuring
        state, why = "wrong", f"{type(error).__name__}: {error}"
    return entry(figure, found, state, why)


def entry(
    figure: Figure, rounds: Sequence[dict[str, Any]], state: str = "measured", why: str | None = None
) -> dict[str, Any]:
    """What the report says of *figure*, from its rounds; numbers only if all of them went well."""
    whole = state == "measured" and bool(rounds)
    value = median([one["value"] for one in rounds]) if whole else None
    rival = median([one["rival"] for one in rounds]) if whole and figure.theirs else None
    ratio = value / rival if value is not None and rival else None
    return {
        "what": figure.what,
        "against": figure.against,
        "state": state,
        "why": why,
        "value": value,
        "rival": rival,
        "ratio": ratio,
        "at_least": figure.at_least,
        "at_most": figure.at_most,
        "met": _met(figure, ratio if figure.theirs else value),
        "spread": {
            side: spread([one[side] for one in rounds]) for side in ("value", "rival") if whole and rounds[0][side]
        },
        "instead": next((one["instead"] for one in rounds if one["instead"]), None),
        "rounds": list(rounds),
    }


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def spread(values: Sequence[float]) -> list[float]:
    """The least and the most."""
    return [min(values), max(values)]


def percentile(values: Sequence[float], percent: float) -> float:
    """The least value that *percent* of all don't exceed."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def _met(figure: Figure, number: float | None) -> bool | None:
    if number is None:
        return None
    if figure.at_least is not None:
        return number >= figure.at_least
    return figure.at_most is None or number <= figure.at_most


def _round(ours: Sample, theirs: Sample | None) -> dict[str, Any]:
    return {
        "value": ours.value,
        "rival": theirs.value if theirs else None,
        "facts": ours.facts,
        "rival_facts": theirs.facts if theirs else {},
        "instead": ours.instead,
    }
