"""Links: what was signed is what is read, and nothing else."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.media.links import Link, key_of, read, token

KEY = key_of("a" * 32)
TIMES = st.integers(1_700_000_000, 4_000_000_000).map(lambda s: datetime.fromtimestamp(s, UTC))
LINKS = st.builds(Link, st.uuids(), st.uuids(), st.integers(1, 2**32 - 1), TIMES)


@given(LINKS)
def test_a_link_reads_as_it_was_written(link):
    text = token(KEY, link)

    assert read(KEY, text) == link
    assert len(text) < 200
    assert text.replace("-", "").replace("_", "").isalnum()


@given(LINKS, st.integers(0), st.characters(codec="ascii"))
def test_a_link_changed_in_one_letter_is_none(link, place, letter):
    text = token(KEY, link)
    place %= len(text)
    forged = text[:place] + letter + text[place + 1 :]
    assume(forged != text)

    assert read(KEY, forged) is None


@given(LINKS, st.text(min_size=1))
def test_a_link_signed_by_another_key_is_none(link, secret):
    assume(key_of(secret) != KEY)

    assert read(KEY, token(key_of(secret), link)) is None


@given(st.text())
def test_no_text_is_too_strange(text):
    assert read(KEY, text) is None


@pytest.mark.parametrize("ending", ["=", "\n", "A", "AA", "AAAA"])
def test_a_link_with_something_after_it_is_none(ending):
    link = Link(uuid4(), uuid4(), 1, datetime(2026, 11, 22, tzinfo=UTC))

    assert read(KEY, token(KEY, link) + ending) is None
