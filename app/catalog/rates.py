"""A model's price list: which rate holds for an input, and where the seconds come from (pure)."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from app.catalog.checks import given, values_at
from app.money import ZERO, Price, parse

GIVEN: Final[Mapping[str, Any]] = {"given": True}


class Basis(StrEnum):
    """What tells how many seconds are paid for."""

    SHOTS = "shots"
    DURATION = "duration"
    INPUT_VIDEO = "input_video"
    INPUT_AUDIO = "input_audio"


# A file's length isn't known when the order comes: the quote takes the longest the model accepts.
MEASURED: Final = frozenset({Basis.INPUT_VIDEO, Basis.INPUT_AUDIO})


@dataclass(frozen=True, slots=True)
class Rate:
    """One line of a price list: the price that holds for inputs like *when*, and the lengths it knows."""

    when: Mapping[str, Any]
    price: Price
    min_seconds: Decimal
    max_seconds: Decimal | None
    verified: bool
    note: str | None

    def holds(self, filled: Mapping[str, Any]) -> bool:
        """Whether this is a rate for *filled*, an input with its defaults."""
        return all(_meets(list(values_at(filled, path)), wanted) for path, wanted in self.when.items())


@dataclass(frozen=True, slots=True)
class PriceBook:
    """The rates of a model, first match wins, and what its seconds are counted from, first known wins."""

    rates: tuple[Rate, ...]
    seconds_from: tuple[Basis, ...]
    step_seconds: Decimal
    source: str

    def rate_for(self, filled: Mapping[str, Any]) -> Rate:
        """The rate for *filled*; the last one is for whatever no other is for."""
        return next((rate for rate in self.rates if rate.holds(filled)), self.rates[-1])


def _meets(found: list[Any], wanted: Any) -> bool:
    return any(map(given, found)) if wanted == GIVEN else wanted in found


def price_book(rules: Mapping[str, Any]) -> PriceBook:
    """*rules*, as a model file writes them, as a price list."""
    return PriceBook(
        rates=tuple(_rate(rule, rules) for rule in rules["rates"]),
        seconds_from=tuple(Basis(name) for name in rules["seconds_from"]),
        step_seconds=parse(rules.get("step_seconds", "0")),
        source=rules["source"],
    )


def _rate(rule: Mapping[str, Any], rules: Mapping[str, Any]) -> Rate:
    base = (parse(rule.get("base_amount", "0")), parse(rule.get("base_seconds", "0")))
    return Rate(
        when=rule.get("when", {}),
        price=Price(parse(rule["per_second"]), *base),
        min_seconds=parse(rule["min_seconds"]) if "min_seconds" in rule else ZERO,
        max_seconds=parse(rule["max_seconds"]) if "max_seconds" in rule else None,
        verified=rule.get("verified", rules["verified"]),
        note=rule.get("note", rules.get("note")),
    )
