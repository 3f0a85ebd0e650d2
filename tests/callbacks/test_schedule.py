"""When what failed is tried again: within bounds, for about a day, and then never."""

from hypothesis import given
from hypothesis import strategies as st

from app.callbacks.schedule import JITTER, LONGEST_S, PAUSES_S, retry_s

TRIES = st.integers(1, len(PAUSES_S))


@given(TRIES)
def test_a_pause_is_near_its_place_in_the_row(tries):
    wait_s = retry_s(tries)

    assert wait_s is not None
    assert abs(wait_s / PAUSES_S[tries - 1] - 1) <= JITTER + 1e-9


@given(TRIES, st.none() | st.floats(min_value=0, allow_nan=False, allow_infinity=True))
def test_a_receiver_lengthens_a_pause_within_bounds_and_never_shortens_it(tries, retry_after_s):
    wait_s = retry_s(tries, retry_after_s=retry_after_s)

    assert wait_s is not None
    assert wait_s >= PAUSES_S[tries - 1] * (1 - JITTER)
    assert wait_s >= min(retry_after_s or 0, LONGEST_S)
    assert wait_s <= LONGEST_S * (1 + JITTER)


@given(st.integers(len(PAUSES_S) + 1, 10_000), st.none() | st.floats(min_value=0, allow_nan=False))
def test_after_the_last_pause_it_is_given_up(tries, retry_after_s):
    assert retry_s(tries, retry_after_s=retry_after_s) is None


def test_all_pauses_make_about_a_day():
    assert 23 * 3600 < sum(PAUSES_S) < 25 * 3600
    assert list(PAUSES_S) == sorted(PAUSES_S)
