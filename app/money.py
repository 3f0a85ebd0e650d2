"""Money: US dollars as exact decimals, and the one place where they are rounded."""

import re
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Final

ZERO: Final = Decimal(0)
# A micro-dollar: the smallest amount kept. fal's own prices go down to a hundredth of a cent a second.
SMALLEST: Final = Decimal("0.000001")
# Digits enough that no product of a price and a length is rounded before we do it ourselves.
EXACT: Final = Context(prec=60)
PLAIN: Final = re.compile(r"-?[0-9]{1,10}(\.[0-9]{1,10})?")


@dataclass(frozen=True, slots=True)
class Price:
    """*base_amount* pays for the first *base_seconds*; each further second costs *per_second*."""

    per_second: Decimal
    base_amount: Decimal = ZERO
    base_seconds: Decimal = ZERO

    def __post_init__(self) -> None:
        for part in (self.per_second, self.base_amount, self.base_seconds):
            if not part.is_finite() or part < 0:
                raise ValueError("A price is made of finite numbers that aren't negative.")


def video_cost(seconds: Decimal, price: Price) -> Decimal:
    """What *seconds* of video cost at *price*, rounded half up to a micro-dollar."""
    if not seconds.is_finite() or seconds < 0:
        raise ValueError("A length in seconds is a finite number that isn't negative.")
    further = max(EXACT.subtract(seconds, price.base_seconds), ZERO)
    amount = EXACT.add(price.base_amount, EXACT.multiply(further, price.per_second))
    return amount.quantize(SMALLEST, rounding=ROUND_HALF_UP, context=EXACT)


def to_text(amount: Decimal) -> str:
    """*amount* as people write it: "2.10", "0.0562"; at least two decimals, never an exponent."""
    if not amount.is_finite():
        raise ValueError("An amount of money is a finite number.")
    # abs: a zero that came out of a subtraction can carry a minus sign.
    whole, _, fraction = f"{amount or abs(amount):f}".partition(".")
    return f"{whole}.{fraction.rstrip('0'):0<2}"


def parse(text: str) -> Decimal:
    """The amount *text* names, in plain notation with at most ten decimals; a float is never money."""
    if not isinstance(text, str):
        raise TypeError('An amount of money is text, such as "2.10".')
    if not PLAIN.fullmatch(text):
        raise ValueError('An amount of money is a plain number of dollars, such as "2.10".')
    return Decimal(text)
