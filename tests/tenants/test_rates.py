"""How many requests a minute: granted evenly, never more than the limit in any burst."""

from hypothesis import given
from hypothesis import strategies as st

from app.tenants.rates import Rates


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_minutes_worth_may_come_at_once_and_then_comes_back_evenly():
    clock = Clock()
    rates = Rates(now=clock)

    burst = [rates.take("a", 4) for _ in range(5)]

    assert [one.granted for one in burst] == [True] * 4 + [False]
    assert [one.left for one in burst] == [3, 2, 1, 0, 0]
    assert (burst[4].wait_s, burst[4].whole_in_s) == (15, 60)
    clock.now_s += 15
    assert [rates.take("a", 4).granted for _ in range(2)] == [True, False]
    clock.now_s += 600
    assert rates.take("a", 4).left == 3


def test_callers_are_counted_apart_and_only_so_many_remembered():
    rates = Rates(most=3, now=Clock())

    assert [rates.take(who, 1).granted for who in "aabcd"] == [True, False, True, True, True]
    # The one heard of longest ago was forgotten for the newest.
    assert rates.take("a", 1).granted


@given(limit=st.integers(1, 1000), pauses=st.lists(st.floats(0, 70), min_size=1, max_size=300))
def test_no_minute_and_no_order_of_requests_grants_more_than_twice_the_limit(limit, pauses):
    clock = Clock()
    rates = Rates(now=clock)
    granted = []

    for pause_s in pauses:
        clock.now_s += pause_s / limit
        one = rates.take("a", limit)
        assert one.granted == (one.wait_s == 0)
        assert 0 <= one.left < limit
        if one.granted:
            granted.append(clock.now_s)
        else:
            clock.now_s += one.wait_s
            assert rates.take("a", limit).granted
            granted.append(clock.now_s)

    # A whole minute's worth at once, and what comes back meanwhile.
    for start in granted:
        assert sum(start <= at <= start + 60 for at in granted) <= 2 * limit
