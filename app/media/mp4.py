"""
How long a video is, read from the few bytes of its MP4 file that say so.

The length is the picture's: the frames that were made, and are sold, each with its time. The movie header
(mvhd) counts the longest track instead, and a sound track is padded to whole audio frames: 5.056 s for
5.042 s of video. It counts only where no video track says how long it is. In a fragmented file the frames
are added up, because its headers are written before their number is known.

What can't be told for sure is None, never 0: a file cut short, broken, or made to keep us busy.
"""

import struct
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final, TypeAlias, TypeVar

# A plain file takes 1 to 4 reads, a fragmented one about one more for each fragment.
MOST_READS: Final = 64
MOST_BYTES: Final = 1 << 20
MOST_BOXES: Final = 10_000
# What we look for lies close together, so one read this long often serves the next few.
READ_AHEAD: Final = 4096
# No generated video lasts longer than a day; a file that says so is broken.
LONGEST_S: Final = 86_400

T = TypeVar("T")
# The walk asks for (offset, length) and is sent those bytes: the same walk for a URL and for bytes at hand.
Reading: TypeAlias = Generator[tuple[int, int], bytes, T]


class _Unknown(Exception):
    """The file doesn't say, or says it in a way that can't be right."""


@dataclass(frozen=True)
class Box:
    """One box of the file: its kind, where its content starts and where it ends."""

    kind: bytes
    body: int
    end: int


@dataclass(frozen=True)
class Track:
    """The video track: its id, its ticks a second, and the ticks its own headers count."""

    id: int
    timescale: int
    ticks: int
    default_ticks: int


@dataclass(frozen=True)
class Movie:
    """What the movie's headers say; *stated* is their own length, for want of a video track's."""

    video: Track | None
    stated: Fraction
    fragmented: bool


async def length_s(read: Callable[[int, int], Awaitable[bytes]], size: int) -> Decimal | None:
    """
    The seconds, to the millisecond, of the video in a file of *size* bytes, or None if they can't be told.

    *read* brings the bytes at (offset, length), and what it raises passes through: a network that fails is
    not a file that doesn't say.
    """
    search = _search(size)
    try:
        wanted = next(search)
        while True:
            wanted = search.send(await read(*wanted))
    except StopIteration as found:
        answer: Decimal | None = found.value
        return answer


def length_of_bytes(data: bytes) -> Decimal | None:
    """The seconds, to the millisecond, of the video in *data*, or None if they can't be told."""
    search = _search(len(data))
    try:
        start, count = next(search)
        while True:
            start, count = search.send(data[start : start + count])
    except StopIteration as found:
        answer: Decimal | None = found.value
        return answer


def _search(size: int) -> Reading[Decimal | None]:
    try:
        seconds = yield from _length(_File(size))
    except _Unknown:
        return None
    milliseconds = int(seconds * 1000 + Fraction(1, 2))
    return Decimal(milliseconds).scaleb(-3) if 0 < milliseconds <= LONGEST_S * 1000 else None


def _length(file: "_File") -> Reading[Fraction]:
    """The length in seconds, from a walk over the whole file: a box past its end means it was cut short."""
    movie: Movie | None = None
    added, position = Fraction(0), 0
    seen: set[bytes] = set()
    # A few bytes of padding at the end are no box.
    while file.size - position >= 8:
        box = yield from file.box(position, file.size)
        position = box.end
        seen.add(box.kind)
        if box.kind == b"moov":
            if movie is not None:
                raise _Unknown
            movie = yield from _movie(file, box)
        elif box.kind == b"moof":
            if movie is None:
                raise _Unknown
            added += yield from _fragment(file, box, movie.video)
        elif box.kind == b"sidx" and movie is not None and movie.video is not None:
            indexed = yield from _index(file, box, movie.video)
            if indexed is not None:
                seen.add(b"moof")
                added += indexed[0]
                position = indexed[1]
    # Frames that are announced but not there, or there unannounced: half of a file, or of two.
    if movie is None or movie.fragmented != (b"moof" in seen) or not seen & {b"moof", b"mdat"}:
        raise _Unknown
    own = Fraction(movie.video.ticks, movie.video.timescale) if movie.video else Fraction(0)
    return own + added or movie.stated


def _movie(file: "_File", moov: Box) -> Reading[Movie]:
    boxes = yield from file.boxes(moov)
    timescale, ticks = yield from _times(file, _one(boxes, b"mvhd"))
    mvex = next((box for box in boxes if box.kind == b"mvex"), None)
    defaults: dict[int, int] = {}
    if mvex is not None:
        # The movie header of a fragmented file leaves out its fragments; mehd, if there is one, counts them.
        ticks = 0
        for box in (yield from file.boxes(mvex)):
            if box.kind == b"trex":
                track, _, default = struct.unpack(">III", (yield from file.content(box, 4, 12)))
                defaults[track] = default
            elif box.kind == b"mehd":
                version = (yield from file.content(box, 0, 1))[0]
                ticks = int.from_bytes((yield from file.content(box, 4, 8 if version else 4)))
    video = None
    for box in boxes:
        if box.kind == b"trak" and video is None:
            video = yield from _video(file, box, defaults if mvex is not None else None)
    return Movie(video, Fraction(ticks, timescale), mvex is not None)


def _video(file: "_File", trak: Box, defaults: dict[int, int] | None) -> Reading[Track | None]:
    """The track in *trak* if it's a picture's; *defaults* are the fragments' tick counts, by track."""
    boxes = yield from file.boxes(trak)
    media = yield from file.boxes(_one(boxes, b"mdia"))
    if (yield from file.content(_one(media, b"hdlr"), 8, 4)) != b"vide":
        return None
    header = _one(boxes, b"tkhd")
    version = (yield from file.content(header, 0, 1))[0]
    number = int.from_bytes((yield from file.content(header, 20 if version else 12, 4)))
    timescale, ticks = yield from _times(file, _one(media, b"mdhd"))
    if defaults is not None:
        # Some writers put the whole length here, some only that of the frames before the first fragment.
        ticks = yield from _frames(file, media)
    return Track(number, timescale, ticks, (defaults or {}).get(number, 0))


def _times(file: "_File", header: Box) -> Reading[tuple[int, int]]:
    """Ticks a second and ticks in all, as mvhd and mdhd tell them; 0 ticks if they leave it open."""
    version = (yield from file.content(header, 0, 1))[0]
    layout = ">IQ" if version else ">II"
    found = yield from file.content(header, 20 if version else 12, struct.calcsize(layout))
    timescale, ticks = struct.unpack(layout, found)
    if timescale == 0 or version > 1:
        raise _Unknown
    return timescale, 0 if ticks == (1 << (64 if version else 32)) - 1 else ticks


def _frames(file: "_File", media: list[Box]) -> Reading[int]:
    """The ticks of the frames that a track's own table lists."""
    minf = yield from file.boxes(_one(media, b"minf"))
    tables = yield from file.boxes(_one(minf, b"stbl"))
    stts = _one(tables, b"stts")
    count = int.from_bytes((yield from file.content(stts, 4, 4)))
    entries = yield from file.content(stts, 8, count * 8)
    return sum(frames * ticks for frames, ticks in struct.iter_unpack(">II", entries))


def _fragment(file: "_File", moof: Box, video: Track | None) -> Reading[Fraction]:
    """The seconds of *video* in one fragment."""
    ticks = 0
    for traf in (yield from file.boxes(moof)):
        if traf.kind != b"traf" or video is None:
            continue
        boxes = yield from file.boxes(traf)
        header = _one(boxes, b"tfhd")
        flags, number = struct.unpack(">II", (yield from file.content(header, 0, 8)))
        if number != video.id:
            continue
        default = video.default_ticks
        if flags & 0x08:
            place = 8 + (8 if flags & 0x01 else 0) + (4 if flags & 0x02 else 0)
            default = int.from_bytes((yield from file.content(header, place, 4)))
        for box in boxes:
            if box.kind == b"trun":
                ticks += yield from _run(file, box, default)
    return Fraction(ticks, video.timescale) if video else Fraction(0)


def _run(file: "_File", trun: Box, default: int) -> Reading[int]:
    """The ticks of one run of frames, each with its own or with the *default*."""
    flags, count = struct.unpack(">II", (yield from file.content(trun, 0, 8)))
    if not flags & 0x100:
        return int(count * default)
    place = 8 + (4 if flags & 0x01 else 0) + (4 if flags & 0x04 else 0)
    # Up to four numbers a frame, of which the first is its time.
    width = 4 * (flags >> 8 & 0xF).bit_count()
    frames = yield from file.content(trun, place, count * width)
    return sum(ticks for (ticks,) in struct.iter_unpack(f">I{width - 4}x", frames))


def _index(file: "_File", sidx: Box, video: Track) -> Reading[tuple[Fraction, int] | None]:
    """The seconds that *sidx* lists for *video* and where they end, or None if it lists something else."""
    version, number, timescale = struct.unpack(">B3xII", (yield from file.content(sidx, 0, 12)))
    layout = ">QQ2xH" if version else ">II2xH"
    length = struct.calcsize(layout)
    _, gap, count = struct.unpack(layout, (yield from file.content(sidx, 12, length)))
    listed = list(struct.iter_unpack(">II4x", (yield from file.content(sidx, 12 + length, count * 12))))
    # The top bit marks an index of indexes.
    if number != video.id or timescale == 0 or any(size >> 31 for size, _ in listed):
        return None
    end = sidx.end + gap + sum(size for size, _ in listed)
    if end > file.size:
        raise _Unknown
    return Fraction(sum(ticks for _, ticks in listed), timescale), end


def _one(boxes: list[Box], kind: bytes) -> Box:
    found = [box for box in boxes if box.kind == kind]
    if len(found) != 1:
        raise _Unknown
    return found[0]


class _File:
    """A file of *size* bytes, of which no more is read than it takes, nothing twice, and never too much."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._windows: list[tuple[int, bytes]] = []
        self._bytes_left = MOST_BYTES
        self._boxes_left = MOST_BOXES

    def content(self, box: Box, offset: int, count: int) -> Reading[bytes]:
        """*count* bytes of what's in *box*."""
        if box.body + offset + count > box.end:
            raise _Unknown
        return (yield from self._bytes(box.body + offset, count))

    def boxes(self, parent: Box) -> Reading[list[Box]]:
        """The boxes in *parent*."""
        found: list[Box] = []
        position = parent.body
        while parent.end - position >= 8:
            box = yield from self.box(position, parent.end)
            found.append(box)
            position = box.end
        return found

    def box(self, start: int, end: int) -> Reading[Box]:
        """The box at *start*, which has to end by *end*."""
        self._boxes_left -= 1
        if self._boxes_left < 0:
            raise _Unknown
        head = yield from self._bytes(start, min(16, end - start))
        size, kind = struct.unpack(">I4s", head[:8])
        body = start + 8
        if size == 1:
            # A box of more than 4 GB: the length follows.
            size, body = int.from_bytes(head[8:]), start + 16
        elif size == 0 and end == self.size:
            size = end - start
        if start + size < body or start + size > end:
            raise _Unknown
        return Box(kind, body, start + size)

    def _bytes(self, start: int, count: int) -> Reading[bytes]:
        for at, window in reversed(self._windows):
            if at <= start and start + count <= at + len(window):
                return window[start - at : start - at + count]
        wanted = min(max(count, READ_AHEAD), self.size - start)
        self._bytes_left -= wanted
        if len(self._windows) >= MOST_READS or self._bytes_left < 0:
            raise _Unknown
        window = (yield start, wanted)[:wanted]
        if len(window) < count:
            raise _Unknown
        self._windows.append((start, window))
        return window[:count]
