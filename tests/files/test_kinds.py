"""What a file is, told from its bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.files.kinds import ENDINGS, HEAD, kind
from tests.files import samples


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (samples.PNG, "image/png"),
        (samples.GIF, "image/gif"),
        (samples.WEBP, "image/webp"),
        (samples.JPEG, "image/jpeg"),
        (samples.AVIF, "image/avif"),
        (samples.AVIF_BY_FORM, "image/avif"),
        (samples.HEIC, "image/heic"),
        (samples.HEIC_BY_FORM, "image/heic"),
        (samples.MP4, "video/mp4"),
        (samples.MOV, "video/quicktime"),
        (samples.WEBM, "video/webm"),
        (samples.MP3, "audio/mpeg"),
        (samples.MP3_TAGGED, "audio/mpeg"),
        (samples.wav(), "audio/wav"),
    ],
)
def test_a_file_is_known_by_its_first_bytes(content, expected):
    assert kind(content[:HEAD]) == expected
    assert expected in ENDINGS


@pytest.mark.parametrize(
    "content",
    [samples.SVG, samples.HTML, samples.MATROSKA, b"%PDF-1.7", b"PK\x03\x04", b"", b"\xff\xfe<\0h\0t\0m\0l\0>\0"],
)
def test_what_could_be_a_page_or_is_no_medium_is_not_taken(content):
    assert kind(content[:HEAD]) is None


@given(st.binary(max_size=HEAD))
def test_any_bytes_can_be_looked_at(head):
    found = kind(head)

    assert found is None or found in ENDINGS
