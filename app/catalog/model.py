"""One model we sell."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jsonschema_rs import Validator

from app.catalog import faults, schema
from app.catalog.checks import CHECKS
from app.catalog.rates import PriceBook
from app.catalog.wording import InputFault


@dataclass(frozen=True, eq=False)
class Model:
    """
    A model: its id is fal's endpoint id, its price None while no price is known for it.

    `price_rules` is the price as its file writes it, to be shown; `price` is the same to calculate with.
    `at_once` is how many jobs for it may be at fal at once, None = no cap.
    """

    id: str
    title: str
    kind: str
    family: str
    input_schema: Mapping[str, Any]
    example: Mapping[str, Any]
    checks: Mapping[str, Mapping[str, Any]]
    price: PriceBook | None
    price_rules: Mapping[str, Any] | None
    note: str | None
    at_once: int | None
    validator: Validator = field(repr=False)

    def faults(self, value: Any) -> list[InputFault]:
        """Everything wrong with *value* as this model's input, all at once; none of it quotes the input."""
        found = faults.find(self.validator, self.input_schema, value)
        if isinstance(value, dict) and not any(fault.code == "unreadable" for fault in found):
            filled = self.filled(value)
            for name, settings in self.checks.items():
                found.extend(CHECKS[name](filled, **settings))
        return list(dict.fromkeys(found))

    def filled(self, value: Mapping[str, Any]) -> dict[str, Any]:
        """*value* with the schema's defaults, to price it by; fal gets what the caller gave."""
        filled: dict[str, Any] = schema.with_defaults(self.input_schema, dict(value))
        return filled
