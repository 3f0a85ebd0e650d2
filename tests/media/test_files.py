"""Which files an output names, how long they last, and what they may be called."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.media.files import KEPT_FOR, MOST_FILES, files, vanishes_at, video_url
from app.media.types import UNKNOWN, media_type

NOW = datetime(2026, 11, 22, 14, 30, tzinfo=UTC)
A, B = "https://v3b.fal.media/files/b/1/a.mp4", "https://v3b.fal.media/files/b/1/b.png"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    ("output", "urls"),
    [
        ({"video": {"url": A}}, [A]),
        ({"video": {"url": A}, "thumbnail": {"url": B}}, [A, B]),
        ({"videos": [{"url": A}, {"url": B}]}, [A, B]),
        ({"data": {"video": {"url": A}}, "image": {"url": B}}, [B, A]),
        ({"video": {"url": A}, "again": {"url": A}}, [A]),
        ({"video": {"url": "data:video/mp4;base64,AAAA"}}, []),
        ({"video": {"url": "file:///etc/passwd"}}, []),
        ({"video": {"url": 5}}, []),
        ({"video": A}, []),
        (None, []),
    ],
)
def test_every_file_is_found_once(output, urls):
    assert [file.url for file in files(output)] == urls


def test_the_video_is_told_from_other_files():
    assert video_url({"thumbnail": {"url": B}, "video": {"url": A}}) == A
    assert video_url({"thumbnail": {"url": B}}) is None


def test_an_output_with_a_flood_of_files_is_cut():
    assert len(files([{"url": f"https://x.example/{n}"} for n in range(1000)])) == MOST_FILES


@given(JSON)
def test_no_output_is_too_strange(output):
    assert isinstance(files(output), list)


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("", KEPT_FOR),
        (f"?Expires={int(NOW.timestamp()) + 60}", timedelta(seconds=60)),
        ("?X-Amz-Date=20261122T142900Z&X-Amz-Expires=300", timedelta(minutes=4)),
        ("?X-Goog-Date=20261122T143000Z&X-Goog-Expires=300", timedelta(minutes=5)),
        ("?X-Amz-Expires=300", KEPT_FOR),
        ("?Expires=soon", KEPT_FOR),
        ("?Expires=1", timedelta()),
        ("?Expires=99999999999999999999", KEPT_FOR),
    ],
)
def test_an_address_may_say_when_it_ends(query, left):
    assert vanishes_at(A + query, NOW) == NOW + left


@given(st.text())
def test_no_address_ends_before_now_or_lasts_longer_than_promised(text):
    assert NOW <= vanishes_at(text, NOW) <= NOW + KEPT_FOR


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (("video/mp4",), "video/mp4"),
        ((None, "Image/PNG; x=y"), "image/png"),
        (("text/html", "video/mp4"), "video/mp4"),
        (("text/html",), UNKNOWN),
        (("image/svg+xml",), UNKNOWN),
        (("video/mp4\r\nX: y",), UNKNOWN),
        ((None, None), UNKNOWN),
    ],
)
def test_nothing_that_runs_in_a_browser_is_called_by_its_name(said, told):
    assert media_type(*said) == told
