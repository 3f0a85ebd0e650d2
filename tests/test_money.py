"""Money is exact, rounded in one place, and written as people write it."""

from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.money import SMALLEST, Price, parse, to_text, video_cost

DOLLARS = st.decimals(0, 1_000_000, places=10)
SECONDS = st.decimals(0, 100_000, places=6)
PRICES = st.builds(Price, DOLLARS, DOLLARS, SECONDS)
AMOUNTS = st.decimals(-9_999_999_999, 9_999_999_999, places=10)


@pytest.mark.parametrize(
    ("seconds", "price", "cost"),
    [
        ("5", Price(Decimal("0.42")), "2.10"),
        ("5.042", Price(Decimal("0.112")), "0.564704"),
        ("5", Price(Decimal("0.07"), Decimal("0.35"), Decimal(5)), "0.35"),
        ("10", Price(Decimal("0.07"), Decimal("0.35"), Decimal(5)), "0.70"),
        ("3", Price(Decimal("0.07"), Decimal("0.35"), Decimal(5)), "0.35"),
        ("0", Price(Decimal("0.42")), "0"),
        ("1", Price(Decimal("0.0000005")), "0.000001"),
        ("1", Price(Decimal("0.0000004")), "0"),
    ],
)
def test_cost_of_a_video(seconds, price, cost):
    assert video_cost(Decimal(seconds), price) == Decimal(cost)


@given(SECONDS, PRICES)
def test_cost_is_exact_but_for_the_last_micro_dollar_and_never_negative(seconds, price):
    cost = video_cost(seconds, price)

    further = max(Fraction(seconds) - Fraction(price.base_seconds), Fraction(0))
    exact = Fraction(price.base_amount) + further * Fraction(price.per_second)
    assert cost >= 0
    assert abs(Fraction(cost) - exact) <= Fraction(SMALLEST) / 2
    assert cost == cost.quantize(SMALLEST, rounding=ROUND_HALF_UP)


@given(SECONDS, SECONDS, PRICES)
def test_a_longer_video_never_costs_less(one, other, price):
    assert video_cost(min(one, other), price) <= video_cost(max(one, other), price)


@pytest.mark.parametrize("seconds", ["-1", "NaN", "Infinity"])
def test_a_length_that_is_none_has_no_cost(seconds):
    with pytest.raises(ValueError, match="finite number"):
        video_cost(Decimal(seconds), Price(Decimal(1)))


@pytest.mark.parametrize("part", ["-0.01", "NaN", "Infinity"])
def test_a_price_is_finite_and_not_negative(part):
    for price in ((part, "0", "0"), ("0", part, "0"), ("0", "0", part)):
        with pytest.raises(ValueError, match="aren't negative"):
            Price(*map(Decimal, price))


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("2.1", "2.10"),
        ("2.100000", "2.10"),
        ("0.281", "0.281"),
        ("0.0562", "0.0562"),
        ("0", "0.00"),
        ("0E-10", "0.00"),
        ("-0.00", "0.00"),
        ("1E+3", "1000.00"),
        ("1E-6", "0.000001"),
        ("-2.5", "-2.50"),
    ],
)
def test_an_amount_is_written_plainly(amount, text):
    assert to_text(Decimal(amount)) == text


@given(AMOUNTS)
def test_what_is_written_reads_back_the_same(amount):
    assert parse(to_text(amount)) == amount


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "-Infinity"])
def test_only_finite_amounts_are_written(amount):
    with pytest.raises(ValueError, match="finite"):
        to_text(Decimal(amount))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "1e3",
        "NaN",
        "Infinity",
        "1.",
        ".5",
        "1,5",
        "$1",
        "1_000",
        "٣",
        "1" * 11,
        "0.12345678901",
    ],
)
def test_text_that_is_no_plain_amount_is_refused(text):
    with pytest.raises(ValueError, match="plain number"):
        parse(text)


@pytest.mark.parametrize("value", [1.5, 1, Decimal(1), None, True])
def test_only_text_is_read_as_money(value: Any):
    with pytest.raises(TypeError, match="is text"):
        parse(value)
