"""callsheet models: what can be ordered, and for how much."""

import json

from rich import box
from rich.table import Table

from app import money
from app.catalog.catalog import load
from app.catalog.model import Model
from app.cli.tables import show_table
from app.cli.trouble import Trouble
from app.settings import Settings


def models(model: str | None = None, /, *, as_json: bool = False) -> None:
    """
    List the models and their prices, or show what one of them takes.

    Parameters
    ----------
    model
        Id of one model, to see its input schema and an example.
    as_json
        Print JSON.
    """
    catalog = load(extra=Settings.read().catalog)
    if model is not None:
        found = catalog.get(model)
        if found is None:
            raise Trouble(f"There is no model {model}. Close to it: {', '.join(catalog.close_to(model)) or 'nothing'}")
        print(json.dumps({"example": found.example, "input_schema": found.input_schema}, indent=2, ensure_ascii=False))
        return
    if as_json:
        print(json.dumps([{"id": each.id, "title": each.title, "price": _price(each)} for each in catalog.models]))
        return
    table = Table("model", "USD per second", "verified", box=box.SIMPLE_HEAD)
    for each in catalog.models:
        verified = each.price is not None and all(rate.verified for rate in each.price.rates)
        table.add_row(each.id, _price(each), "yes" if verified else "no")
    show_table(table)


def _price(model: Model) -> str:
    if model.price is None:
        return "not known"
    rates = [money.to_text(rate.price.per_second) for rate in model.price.rates]
    return " / ".join(dict.fromkeys(rates))
