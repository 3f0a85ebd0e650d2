"""Prices: how many seconds an order pays for, and what they cost (pure)."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

from app.catalog.checks import seconds, shots_seconds
from app.catalog.model import Model
from app.catalog.rates import MEASURED, Basis, PriceBook, Rate
from app.errors import AppError
from app.money import Price, video_cost


class Unpriced(AppError):
    """No price is known for this model, so it can't be ordered until the operator sets one."""

    status, code = 422, "unpriced"


MILLISECOND: Final = Decimal("0.001")


@dataclass(frozen=True, slots=True)
class Quote:
    """
    What an order will cost at most.

    With *is_maximum* the seconds are the longest the model takes, because the length of the caller's
    file isn't known yet; the charge then follows what was measured.
    """

    seconds: Decimal
    min_seconds: Decimal
    step_seconds: Decimal
    price: Price
    amount: Decimal
    basis: Basis
    is_maximum: bool
    verified: bool
    source: str
    note: str | None


def quote(model: Model, value: Mapping[str, Any]) -> Quote:
    """The price of *value* as an order to *model*; the input must be one the model takes."""
    if model.price is None:
        raise Unpriced(model.note)
    filled = model.filled(value)
    rate = model.price.rate_for(filled)
    basis, length = _length(model.price, rate, filled)
    # Kept, and charged, to the millisecond.
    length = _in_steps(max(length, rate.min_seconds), model.price.step_seconds).quantize(MILLISECOND, ROUND_CEILING)
    return Quote(
        seconds=length,
        min_seconds=rate.min_seconds,
        step_seconds=model.price.step_seconds,
        price=rate.price,
        amount=video_cost(length, rate.price),
        basis=basis,
        is_maximum=basis in MEASURED,
        verified=rate.verified,
        source=model.price.source,
        note=rate.note,
    )


def settled_seconds(quoted: Decimal, measured: Decimal | None, *, least: Decimal, step: Decimal) -> Decimal:
    """
    The seconds to charge for an order that held a maximum, once the video's length is known.

    A length of zero means the measuring failed: then what was *quoted* is charged, and nothing is
    ever charged beyond it.
    """
    if not measured or measured < 0:
        return quoted
    return min(_in_steps(max(measured, least), step), quoted)


def _length(book: PriceBook, rate: Rate, filled: Mapping[str, Any]) -> tuple[Basis, Decimal]:
    for basis in book.seconds_from:
        length = _known(basis, rate, filled)
        if length is not None:
            return basis, length
    raise ValueError("The input doesn't say how long the video is; it has to be checked before it is priced.")


def _known(basis: Basis, rate: Rate, filled: Mapping[str, Any]) -> Decimal | None:
    if basis is Basis.SHOTS:
        return shots_seconds(filled)
    if basis is Basis.DURATION:
        return seconds(filled.get("duration"))
    return rate.max_seconds


def _in_steps(length: Decimal, step: Decimal) -> Decimal:
    return (length / step).to_integral_value(ROUND_CEILING) * step if step else length
