"""The length of a video is exact where the file says it, and unknown where it doesn't."""

import io
import struct
import tempfile
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.media import mp4
from app.media.mp4 import length_of_bytes, length_s

PLAIN = ""
FASTSTART = "faststart"
FRAGMENTED = "frag_keyframe+empty_moov"
FRAGMENTED_LATER = "frag_keyframe"
DEFAULT_BASE = "frag_keyframe+empty_moov+default_base_moof+omit_tfhd_offset"
EVERY_FRAME = "frag_every_frame+empty_moov"
INDEXED = "dash+frag_keyframe+global_sidx"
MILLISECOND = Decimal("0.001")
LAYOUTS = [PLAIN, FASTSTART, FRAGMENTED, FRAGMENTED_LATER, DEFAULT_BASE, INDEXED]


@cache
def film(frames: int, fps: int, layout: str = PLAIN, *, sound: bool = False, gop: int = 24) -> bytes:
    """A real MP4, as an encoder writes it."""
    # Some layouts are written in two goes, for which the encoder opens the file a second time.
    with (
        tempfile.NamedTemporaryFile(suffix=".mp4") as file,
        av.open(file.name, "w", options={"movflags": layout} if layout else {}) as film,
    ):
        video = film.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        video.width = video.height = 16
        video.pix_fmt = "yuv420p"
        video.gop_size = gop
        audio = film.add_stream("aac", rate=44_100, layout="mono") if sound else None
        for number in range(frames):
            frame = av.VideoFrame(16, 16, "yuv420p")
            frame.pts = number
            film.mux(video.encode(frame))
        film.mux(video.encode())
        if audio is not None:
            samples = av.AudioFrame("fltp", "mono", 44_100 * frames // fps + 2_000)
            samples.rate, samples.pts = 44_100, 0
            samples.planes[0].update(bytes(samples.planes[0].buffer_size))
            film.mux(audio.encode(samples))
            film.mux(audio.encode())
        film.close()
        return Path(file.name).read_bytes()


class Ranges:
    """A file behind HTTP ranges, which counts what is asked of it."""

    def __init__(self, data: bytes) -> None:
        self.data, self.reads, self.bytes = data, 0, 0

    async def __call__(self, offset: int, count: int) -> bytes:
        assert 0 <= offset < len(self.data)
        assert 0 < count <= len(self.data) - offset
        self.reads, self.bytes = self.reads + 1, self.bytes + count
        return self.data[offset : offset + count]


# --- Real files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sound", [False, True], ids=["silent", "sound"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("frames", "fps"), [(72, 24), (125, 25), (121, 24), (450, 30)])
async def test_length_is_that_of_the_picture(frames, fps, layout, sound):
    data = film(frames, fps, layout, sound=sound)

    answer = await length_s(Ranges(data), len(data))

    assert answer == picture_s(data)
    # In fragments the encoder shows the first frame longer, until the sound has warmed up.
    late = Decimal(1) / fps if sound and layout not in {PLAIN, FASTSTART} else 0
    assert 0 <= answer - (Decimal(frames) / fps).quantize(MILLISECOND) <= late


def test_sound_that_goes_on_does_not_lengthen_the_video():
    data = film(121, 24, sound=True)

    with av.open(io.BytesIO(data), "r") as file:
        assert (file.duration or 0) > 5_060_000
    assert length_of_bytes(data) == Decimal("5.042")


def picture_s(data: bytes) -> Decimal:
    """The length of the video track as FFmpeg sees it."""
    with av.open(io.BytesIO(data), "r") as file:
        video = file.streams.video[0]
        ticks, tick = video.duration, video.time_base
    assert ticks is not None
    assert tick is not None
    return (Decimal(ticks * tick.numerator) / tick.denominator).quantize(MILLISECOND, ROUND_HALF_UP)


@pytest.mark.parametrize(("layout", "most_reads"), [(PLAIN, 2), (FASTSTART, 2), (FRAGMENTED, 6)])
async def test_few_bytes_are_read(layout, most_reads):
    data = film(125, 25, layout, sound=True)
    padded = data + box(b"free", bytes(1_000_000))
    ranges = Ranges(padded)

    await length_s(ranges, len(padded))

    # One more for the padding, which is a megabyte nobody wants to read.
    assert ranges.reads <= most_reads + 1
    assert ranges.bytes < 40_000


def test_index_spares_reading_hundreds_of_fragments():
    data = film(450, 30, INDEXED, gop=3)
    assert data.count(b"moof") == 150

    assert length_of_bytes(data) == Decimal(15)


async def test_network_that_fails_is_not_an_unknown_length():
    async def broken(offset: int, count: int) -> bytes:
        raise ConnectionError("reset")

    with pytest.raises(ConnectionError):
        await length_s(broken, 1000)


# --- Made by hand -------------------------------------------------------------------------------------------


def box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def long_box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4sQ", 1, kind, 16 + len(content)) + content


def times(kind: bytes, timescale: int, ticks: int, version: int = 0) -> bytes:
    """An mvhd or mdhd."""
    layout = ">B3xQQIQ" if version else ">B3xIIII"
    return box(kind, struct.pack(layout, version, 0, 0, timescale, ticks), bytes(80))


def track(number: int, timescale: int, ticks: int, handler: bytes = b"vide", version: int = 0) -> bytes:
    return box(
        b"trak",
        box(b"tkhd", struct.pack(">B3xQQI" if version else ">B3xIII", version, 0, 0, number), bytes(60)),
        box(
            b"mdia",
            times(b"mdhd", timescale, ticks, version),
            box(b"hdlr", bytes(8), handler, bytes(13)),
            box(b"minf", box(b"stbl", box(b"stts", bytes(8)))),
        ),
    )


def fragmented(*fragments: bytes, mehd: bytes = b"", handler: bytes = b"vide") -> bytes:
    trex = box(b"trex", struct.pack(">IIIIII", 0, 1, 1, 512, 0, 0))
    moov = box(b"moov", times(b"mvhd", 1000, 0), track(1, 12_800, 0, handler), box(b"mvex", mehd, trex))
    return moov + b"".join(fragments)


def fragment(*runs: bytes, number: int = 1, default: int | None = None) -> bytes:
    header = struct.pack(">II", 0 if default is None else 8, number)
    if default is not None:
        header += struct.pack(">I", default)
    return box(b"moof", box(b"traf", box(b"tfhd", header), *runs)) + box(b"mdat", bytes(100))


def run(count: int) -> bytes:
    return box(b"trun", struct.pack(">II", 0, count))


MDAT = box(b"mdat", bytes(64))


@settings(deadline=None)
@given(
    timescale=st.integers(1, 2**32 - 1),
    ticks=st.integers(1, 2**32 - 2),
    version=st.sampled_from([0, 1]),
    where=st.sampled_from(["start", "end"]),
    wide=st.booleans(),
    has_track=st.booleans(),
)
def test_header_is_read_exactly(*, timescale, ticks, version, where, wide, has_track):
    headers = [times(b"mvhd", timescale, ticks, version)]
    if has_track:
        headers = [times(b"mvhd", 1, 9, version), track(1, timescale, ticks, version=version)]
    moov = (long_box if wide else box)(b"moov", *headers)
    data = moov + MDAT if where == "start" else long_box(b"mdat", bytes(64)) + moov

    answer = length_of_bytes(data)

    milliseconds = (2000 * ticks + timescale) // (2 * timescale)
    sane = 0 < milliseconds <= 86_400_000
    assert answer == (Decimal(milliseconds) / 1000 if sane else None)
    assert answer is None or answer.as_tuple().exponent == -3


def test_last_box_may_run_to_the_end_of_the_file():
    moov = box(b"moov", times(b"mvhd", 1000, 5042))

    assert length_of_bytes(moov + struct.pack(">I4s", 0, b"mdat") + bytes(500)) == Decimal("5.042")


def test_few_bytes_of_padding_do_no_harm():
    assert length_of_bytes(box(b"moov", times(b"mvhd", 1000, 5000)) + MDAT + bytes(4)) == Decimal(5)


def test_picture_counts_and_not_the_sound_before_it():
    moov = box(b"moov", times(b"mvhd", 1000, 5056), track(1, 44_100, 222_970, b"soun"), track(2, 24, 121))

    assert length_of_bytes(moov + MDAT) == Decimal("5.042")


@pytest.mark.parametrize("unsaid", [0, 2**32 - 1])
def test_movie_header_stands_in_for_a_track_that_leaves_it_open(unsaid):
    moov = box(b"moov", times(b"mvhd", 1000, 5042), track(1, 24, unsaid))

    assert length_of_bytes(moov + MDAT) == Decimal("5.042")


def test_frames_of_fragments_are_added_up():
    own_times = box(b"trun", struct.pack(">II", 0x705, 2), bytes(8), struct.pack(">6I", 256, 9, 9, 768, 9, 9))
    data = fragmented(
        fragment(run(25)),  # each lasts as long as trex says
        fragment(run(10), run(15), default=1024),
        fragment(own_times),
        fragment(run(1000), number=2),  # the sound
    )

    assert length_of_bytes(data) == Decimal(25 * 512 + 25 * 1024 + 256 + 768) / 12_800


def test_stated_length_of_a_fragmented_file_without_a_picture_counts():
    mehd = box(b"mehd", struct.pack(">II", 0, 5056))

    assert length_of_bytes(fragmented(fragment(run(10)), mehd=mehd, handler=b"soun")) == Decimal("5.056")


# --- Broken or hostile --------------------------------------------------------------------------------------

BROKEN: dict[str, bytes] = {
    "nothing": b"",
    "few bytes": b"\0\0\0",
    "zeros": bytes(5000),
    "text": b"<html><body>Not found</body></html>" * 100,
    "webm": b"\x1aE\xdf\xa3" + bytes(5000),
    "no moov": box(b"ftyp", b"isom") + MDAT,
    "moov only in name": box(b"moov"),
    "two moovs": 2 * box(b"moov", times(b"mvhd", 1000, 5000)),
    "length 0": box(b"moov", times(b"mvhd", 1000, 0)) + MDAT,
    "timescale 0": box(b"moov", times(b"mvhd", 0, 5000)) + MDAT,
    "unknown length": box(b"moov", times(b"mvhd", 1000, 2**32 - 1)) + MDAT,
    "unknown version": box(b"moov", box(b"mvhd", b"\7", bytes(200))) + MDAT,
    "shorter than a millisecond": box(b"moov", times(b"mvhd", 2**32 - 1, 1)) + MDAT,
    "a year": box(b"moov", times(b"mvhd", 1, 31_536_000)) + MDAT,
    "mvhd too short": box(b"moov", box(b"mvhd", bytes(10))) + MDAT,
    "box of size 4": box(b"moov", times(b"mvhd", 1000, 5000)) + struct.pack(">I4s", 4, b"mdat") + bytes(99),
    "box of size 0 inside": box(b"moov", struct.pack(">I4s", 0, b"mvhd"), bytes(200)) + MDAT,
    "wide box shorter than its head": struct.pack(">I4sQ", 1, b"moov", 8) + bytes(200),
    "wide box that wraps": struct.pack(">I4sQ", 1, b"moov", 2**64 - 8) + bytes(200),
    "wide box cut in its head": struct.pack(">I4s", 1, b"moov") + bytes(3),
    "cut in the picture": box(b"moov", times(b"mvhd", 1000, 5000)) + MDAT[:-1],
    "child longer than its parent": box(b"moov", times(b"mvhd", 1000, 5000)[:40]) + bytes(100),
    "headers only": box(b"moov", times(b"mvhd", 1000, 5000)),
    "no fragments": fragmented(),
    "fragments unannounced": box(b"moov", times(b"mvhd", 1000, 5000)) + fragment(run(25)),
    "fragment before the movie": fragment(run(25)) + fragmented(fragment(run(25))),
    "billions of frames": fragmented(fragment(run(2**32 - 1), default=2**32 - 1)),
    "frames that are not there": fragmented(fragment(box(b"trun", struct.pack(">II", 0x100, 2**32 - 1)))),
    "thousands of boxes": box(b"moov", box(b"free") * 20_000, times(b"mvhd", 1000, 5000)) + MDAT,
    "hundreds of far fragments": fragmented(*(fragment(run(1)) + box(b"mdat", bytes(5000)) for _ in range(100))),
    "index past the end": fragmented(
        box(b"sidx", struct.pack(">IIIIIHHIII", 0, 1, 12_800, 0, 0, 0, 1, 2**31 - 1, 12_800, 0))
    ),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
async def test_broken_file_is_unknown(data):
    ranges = Ranges(data)

    assert await length_s(ranges, len(data)) is None
    assert ranges.reads <= mp4.MOST_READS
    assert ranges.bytes <= mp4.MOST_BYTES


async def test_server_that_brings_less_than_asked_is_unknown():
    data = film(72, 24)

    async def stingy(offset: int, count: int) -> bytes:
        return data[offset : offset + count // 1000]

    assert await length_s(stingy, len(data)) is None


@settings(deadline=None)
@given(layout=st.sampled_from([*LAYOUTS, EVERY_FRAME]), data=st.data())
def test_no_file_cut_short_has_a_wrong_length(layout, data):
    whole = film(72, 24, layout, sound=True)

    answer = length_of_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])

    # Cut between fragments it's a whole file of fewer; nothing is ever added.
    whole_s = picture_s(whole)
    assert answer is None or (layout not in {PLAIN, FASTSTART} and Decimal(0) < answer <= whole_s)


Mutation = Callable[[bytearray, int, int], None]


def flip(data: bytearray, at: int, value: int) -> None:
    data[at] = value & 0xFF


def rewrite(data: bytearray, at: int, value: int) -> None:
    data[at : at + 4] = struct.pack(">I", value)


def rename(data: bytearray, at: int, value: int) -> None:
    kinds = (b"moov", b"trak", b"mvhd", b"moof", b"sidx", b"trun", b"mdat", b"free")
    data[at : at + 4] = kinds[value % len(kinds)]


def remove(data: bytearray, at: int, value: int) -> None:
    del data[at : at + value % 64]


def repeat(data: bytearray, at: int, value: int) -> None:
    data[at:at] = data[at : at + value % 2000]


MUTATIONS: list[Mutation] = [flip, rewrite, rename, remove, repeat]


def header_places(data: bytes) -> list[int]:
    """Where boxes start: a change there is likelier to matter than one in the picture."""
    names = (
        b"moov",
        b"mvhd",
        b"trak",
        b"mdia",
        b"mdhd",
        b"stts",
        b"mvex",
        b"moof",
        b"traf",
        b"trun",
        b"sidx",
        b"mdat",
    )
    return [at - 4 for name in names for at in range(4, len(data)) if data.startswith(name, at)]


@cache
def places(layout: str) -> list[int]:
    return header_places(film(72, 24, layout, sound=True))


@settings(deadline=None)
@given(data=st.data(), layout=st.sampled_from(LAYOUTS))
async def test_no_mutation_raises_loops_or_gives_nonsense(data, layout):
    mutant = bytearray(film(72, 24, layout, sound=True))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.sampled_from(places(layout))) + data.draw(st.integers(0, 40))
        value = data.draw(st.one_of(st.integers(0, 64), st.integers(0, 2**32 - 1)))
        data.draw(st.sampled_from(MUTATIONS))(mutant, min(at, len(mutant) - 1), value)
    ranges = Ranges(bytes(mutant))

    answer = await length_s(ranges, len(mutant))

    assert answer is None or Decimal(0) < answer <= mp4.LONGEST_S
    assert answer == length_of_bytes(bytes(mutant))
    assert ranges.reads <= mp4.MOST_READS
    assert ranges.bytes <= mp4.MOST_BYTES
