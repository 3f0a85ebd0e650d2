"""
Test videos: real H.264 MP4 files of the exact length, made once per shape.

A scrolling gradient with a moving block and a seconds counter under the word SIMULATOR, so that nobody takes
one for a paid render; a soft tone when audio was ordered. The picture is built from bytes by hand, since
numpy would be a lot of weight for six rectangles.
"""

import asyncio
import math
from array import array
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from app.simulator import letters
from app.simulator.inputs import Shape

try:
    import av
except ImportError:  # pragma: no cover - the extra is part of the development set-up
    av = None  # type: ignore[assignment]

FPS: Final = 24
SAMPLE_RATE: Final = 48_000
TINTS: Final = ((90, 170), (170, 90), (110, 110), (160, 160))
# One wave of 400 Hz, repeated; computing every sample would take longer than encoding it.
TONE: Final = array("f", (0.08 * math.sin(2 * math.pi * n / 120) for n in range(120)))


class NoEncoder(RuntimeError):
    """The simulator makes its videos with PyAV, which isn't installed: pip install 'callsheet[video]'"""


def require_encoder() -> None:
    """Raise NoEncoder unless videos can be made here."""
    if av is None:
        raise NoEncoder(NoEncoder.__doc__)


class Clips:
    """The clips made so far, in *folder*; a shape that isn't there is encoded in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="simulator-clips")
        self._making: dict[Shape, asyncio.Future[Path]] = {}

    def ready(self, shape: Shape) -> Path | None:
        """The file of *shape*, if it's there already."""
        making = self._making.get(shape)
        return making.result() if making is not None and making.done() and not making.exception() else None

    def make(self, shape: Shape) -> asyncio.Future[Path]:
        """The file of *shape*, made now if it has to be."""
        making = self._making.get(shape)
        if making is None or (making.done() and making.exception() is not None):
            making = asyncio.get_running_loop().run_in_executor(self._threads, self._make, shape)
            self._making[shape] = making
        return making

    async def length(self, file: Path) -> Decimal | None:
        """Seconds of an uploaded video, or None when it isn't one."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, length_of, file)

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _make(self, shape: Shape) -> Path:
        sound = "sound" if shape.audio else "silent"
        file = self._folder / f"{shape.width}x{shape.height}-{shape.seconds}s-{sound}-{shape.tint}.mp4"
        if not file.exists():
            # Renamed when whole: a kill in the middle mustn't leave half a film to be served for ever.
            # Two simulators may make the same in one folder, even within one process.
            part = file.with_suffix(f".{uuid4().hex}.part")
            encode(part, shape)
            part.rename(file)
        return file


def length_of(file: Path) -> Decimal | None:
    """Seconds of the video in *file*, or None when it isn't one."""
    try:
        with av.open(str(file)) as container:
            if container.duration and container.streams.video:
                return Decimal(container.duration) / 1_000_000
    except (av.FFmpegError, ValueError):
        pass
    return None


def encode(file: Path, shape: Shape) -> None:
    """Write the clip of *shape* to *file*."""
    with av.open(str(file), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        video = container.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = shape.width, shape.height, "yuv420p"
        video.options = {"preset": "ultrafast", "crf": "30", "g": "48"}
        video.codec_context.thread_count = 1
        # Both streams must be known before the first packet writes the header.
        sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono") if shape.audio else None
        _write_picture(container, video, shape)
        if sound is not None:
            _write_tone(container, sound, shape)


def _write_picture(container: Any, stream: Any, shape: Shape) -> None:
    painter = Painter(shape)
    for number in range(max(1, round(shape.seconds * FPS))):
        frame = av.VideoFrame(shape.width, shape.height, "yuv420p")
        painter.paint(frame, number)
        frame.pts = number
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def _write_tone(container: Any, stream: Any, shape: Shape) -> None:
    total, done = round(shape.seconds * SAMPLE_RATE), 0
    wave = (TONE * (1024 // len(TONE) + 2)).tobytes()
    while done < total:
        samples = min(1024, total - done)
        frame = av.AudioFrame(format="fltp", layout="mono", samples=samples)
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, done, Fraction(1, SAMPLE_RATE)
        start = done % len(TONE) * 4
        plane = frame.planes[0]
        plane.update(wave[start : start + samples * 4].ljust(plane.buffer_size, b"\0"))
        container.mux(stream.encode(frame))
        done += samples
    container.mux(stream.encode())


class Painter:
    """Paints the frames of one clip."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        width = shape.width
        half = bytes(40 + 120 * n // (width // 2) for n in range(width // 2))
        self._gradient = (half + half[::-1]) * 2
        self._chroma = TINTS[shape.tint % len(TINTS)]

    def paint(self, frame: Any, number: int) -> None:
        luma, *chroma = frame.planes
        luma.update(self._luma(number, luma.line_size))
        for plane, level in zip(chroma, self._chroma, strict=True):
            plane.update(bytes([level]) * plane.buffer_size)

    def _luma(self, number: int, line_size: int) -> bytes:
        width, height = self._shape.width, self._shape.height
        shift = number * 3 % width
        picture = bytearray(self._gradient[shift : shift + width].ljust(line_size, b"\0") * height)
        self._block(picture, line_size, number)
        letters.write(picture, line_size, "SIMULATOR", left=20, top=24, size=4)
        letters.write(picture, line_size, f"{number / FPS:05.2f}", left=20, top=64, size=4)
        return bytes(picture)

    def _block(self, picture: bytearray, line_size: int, number: int) -> None:
        side = 48
        span = self._shape.width - side
        left = span - abs(number * 5 % (2 * span) - span)
        for row in range(self._shape.height // 2, self._shape.height // 2 + side):
            picture[row * line_size + left : row * line_size + left + side] = b"\xe0" * side
