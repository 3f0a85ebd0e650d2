"""Reading model files: their form, then what only makes sense together; every fault in plain words."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from app.catalog import checks, faults, schema
from app.catalog.model import Model
from app.catalog.rates import MEASURED, Basis, PriceBook, price_book

FORMAT: Final[Mapping[str, Any]] = json.loads((Path(__file__).parent / "format.json").read_text("utf-8"))
# The field that has to be there for seconds to be counted from it.
FIELDS: Final[Mapping[Basis, str]] = {Basis.SHOTS: "multi_prompt", Basis.DURATION: "duration"}


class CatalogError(Exception):
    """The model files have faults; `faults` names each, with its file and place."""

    def __init__(self, found: list[str]) -> None:
        super().__init__("The model files have faults:\n" + "\n".join(found))
        self.faults = found


def read(folder: Path, found: list[str]) -> list[Model]:
    """The models in *folder*'s files; what is wrong with them is added to *found*."""
    files = sorted(folder.glob("*.json"))
    if not files:
        found.append(f"{folder}: there are no model files (*.json) here.")
    models = [model for file in files for model in _family(file, found)]
    seen: set[str] = set()
    for model in models:
        if model.id in seen:
            found.append(f"{folder}: {model.id} is there twice.")
        seen.add(model.id)
    return models


def _family(file: Path, found: list[str]) -> list[Model]:
    try:
        family = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as wrong:
        found.append(f"{file.name}: isn't a readable JSON file ({wrong}).")
        return []
    if amiss := faults.find(schema.compiled(FORMAT), FORMAT, family):
        found.extend(f"{file.name} {fault.pointer}: {fault.detail}" for fault in amiss)
        return []
    models = []
    for entry in family["models"]:
        try:
            model = _model(entry, family)
        except (ValueError, KeyError, schema.SchemaError) as wrong:
            found.append(f"{file.name} {entry['id']}: {_told(wrong)}")
            continue
        found.extend(f"{file.name} {entry['id']}: {fault}" for fault in _amiss(model))
        models.append(model)
    return models


def _told(wrong: Exception) -> str:
    return f"this file has no {wrong}." if isinstance(wrong, KeyError) else str(wrong)


def _model(entry: Mapping[str, Any], family: Mapping[str, Any]) -> Model:
    offered = family["inputs"][entry["input"]]
    rules = family["prices"][entry["price"]] if entry["price"] else None
    complete = schema.complete(offered["schema"], family.get("$defs", {}), entry["title"])
    return Model(
        id=entry["id"],
        title=entry["title"],
        kind=entry["kind"],
        family=family["family"],
        input_schema=complete,
        example=offered["example"],
        checks=offered.get("checks", {}),
        price=price_book(rules) if rules else None,
        price_rules=rules,
        note=entry.get("note"),
        at_once=entry.get("at_once"),
        validator=schema.compiled(complete),
    )


def _amiss(model: Model) -> Iterator[str]:
    """What is wrong with a model that could be put together."""
    misused = [wrong for name, settings in model.checks.items() if (wrong := checks.misuse(name, settings))]
    yield from misused
    if not misused:
        yield from (f"the example's {fault.pointer}: {fault.detail}" for fault in model.faults(dict(model.example)))
    yield from _bad_defaults(model.input_schema, "")
    if model.price is not None:
        yield from _bad_price(model.price, model.input_schema)
    elif not model.note:
        yield "a model without a price needs a note that says why."


def _bad_defaults(rules: Any, where: str) -> Iterator[str]:
    if not isinstance(rules, dict):
        return
    if "default" in rules and not schema.compiled(rules).is_valid(rules["default"]):
        yield f"the default of {where} isn't a value it takes."
    for name, inner in rules.get("properties", {}).items():
        yield from _bad_defaults(inner, f"{where}/{name}")
    yield from _bad_defaults(rules.get("items"), f"{where}/*")


def _bad_price(book: PriceBook, rules: Mapping[str, Any]) -> Iterator[str]:
    fields, last = rules.get("properties", {}), book.seconds_from[-1]
    if book.rates[-1].when:
        yield "the last rate must have no conditions, so that every order has a price."
    for path in sorted({path for rate in book.rates for path in rate.when}):
        if not _exists(rules, path):
            yield f"a rate depends on {path}, which isn't a field of the input."
    for basis in book.seconds_from:
        if (name := FIELDS.get(basis)) and name not in fields:
            yield f"seconds are counted from {basis}, but the input has no {name}."
    if last is Basis.SHOTS or (last is Basis.DURATION and not _always_there("duration", rules)):
        yield "an order may leave out everything the seconds are counted from; give duration a default."
    if last in MEASURED and any(rate.max_seconds is None for rate in book.rates):
        yield f"seconds are counted from {last}, so every rate needs max_seconds."
    if any(rate.max_seconds is not None and rate.max_seconds < rate.min_seconds for rate in book.rates):
        yield "a rate's min_seconds is more than its max_seconds."


def _always_there(name: str, rules: Mapping[str, Any]) -> bool:
    return name in rules.get("required", []) or "default" in rules.get("properties", {}).get(name, {})


def _exists(rules: Any, path: str) -> bool:
    step, _, rest = path.partition("/")
    inner = rules.get("items") if step == "*" else rules.get("properties", {}).get(step)
    return inner is not None and (not rest or _exists(inner, rest))
