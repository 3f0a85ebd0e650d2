"""Range headers, as RFC 9110 reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.media.ranges import Unsatisfiable, wanted


@pytest.mark.parametrize(
    ("header", "part"),
    [
        (None, None),
        ("bytes=0-", (0, 10)),
        ("bytes=0-0", (0, 1)),
        ("bytes=2-5", (2, 6)),
        ("Bytes=2-500", (2, 10)),
        ("bytes=-3", (7, 10)),
        ("bytes=-30", (0, 10)),
        ("bytes=5-2", None),
        ("bytes=-", None),
        ("bytes=0-1,4-5", None),
        ("items=0-1", None),
        ("bytes=a-b", None),
    ],
)
def test_a_range_is_read(header, part):
    assert wanted(header, 10) == part


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_a_range_beyond_the_end_is_refused(header):
    with pytest.raises(Unsatisfiable):
        wanted(header, 10)


@given(st.one_of(st.text(), st.from_regex(r"bytes=\d{0,4}-\d{0,4}", fullmatch=True)), st.integers(1, 5000))
def test_a_range_is_always_within_the_file(header, size):
    try:
        part = wanted(header, size)
    except Unsatisfiable:
        return
    assert part is None or 0 <= part[0] < part[1] <= size
