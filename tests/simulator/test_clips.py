"""The videos: real ones, of the ordered length."""

import io
import time
import timeit
from decimal import Decimal
from pathlib import Path
from typing import Any

import av
import pytest

from app.simulator.clips import encode, length_of
from app.simulator.inputs import Shape
from tests.simulator.conftest import O3, Box

FRAME_S = 1 / 24


async def video(box: Box, order: dict[str, Any], endpoint: str = O3) -> tuple[bytes, Any]:
    """The delivered file, and what a decoder says of it."""
    answer = await box.client.post(f"/{endpoint}", json={"prompt": "x"} | order)
    request_id = answer.json()["request_id"]
    await box.ended(request_id)
    said = (await box.result(request_id)).json()["video"]
    content = (await box.client.get(said["url"])).content
    assert said["file_size"] == len(content)
    return content, av.open(io.BytesIO(content))


@pytest.mark.parametrize(
    ("order", "size", "seconds"),
    [
        ({"duration": "3"}, (640, 360), 3),
        ({"duration": "4", "aspect_ratio": "9:16"}, (360, 640), 4),
        ({"aspect_ratio": "1:1"}, (480, 480), 5),
        (
            {"prompt": None, "multi_prompt": [{"prompt": "a", "duration": "2"}, {"prompt": "b", "duration": "4"}]},
            (640, 360),
            6,
        ),
    ],
)
async def test_video_is_h264_in_the_asked_shape_and_length(box: Box, order: Any, size: tuple[int, int], seconds: int):
    content, container = await video(box, order)

    stream = container.streams.video[0]
    assert stream.codec_context.name == "h264"
    assert stream.codec_context.pix_fmt == "yuv420p"
    assert (stream.width, stream.height) == size
    assert sum(1 for _ in container.decode(video=0)) == seconds * 24
    assert abs(container.duration / 1_000_000 - seconds) < FRAME_S
    assert content.find(b"moov") < content.find(b"mdat")
    assert not container.streams.audio


async def test_ordered_audio_is_there_and_no_longer_than_the_picture(box: Box):
    _, container = await video(box, {"duration": "3", "generate_audio": True})

    sound = container.streams.audio[0]
    assert sound.codec_context.name == "aac"
    assert abs(container.duration / 1_000_000 - 3) < FRAME_S


async def test_edited_video_is_as_long_as_the_uploaded_one(box: Box, tmp_path: Path):
    source = tmp_path / "source.mp4"
    encode(source, Shape(640, 360, Decimal("3.5"), audio=False))
    upload = await box.client.post("/files/upload", content=source.read_bytes(), headers={"Content-Type": "video/mp4"})
    order = {"video_url": upload.json()["access_url"]}

    _, container = await video(box, order, "fal-ai/kling-video/o3/4k/video-to-video/edit")

    assert abs(container.duration / 1_000_000 - 3.5) < FRAME_S
    assert Decimal((await box.books())[0]["billed"]) == Decimal("3.5") * Decimal("0.42")


async def test_script_may_deliver_another_length_than_is_charged(box: Box):
    _, container = await video(box, {"duration": "5", "prompt": "[[sim: video_s=2]]"})

    assert container.duration == 2_000_000
    assert (await box.books())[0]["billed"] == "2.10"


async def test_requests_of_one_shape_share_one_encoding(box: Box):
    first, second = [await box.submit() for _ in range(2)]
    await box.ended(first)
    await box.ended(second)

    urls = {(await box.result(one)).json()["video"]["url"] for one in (first, second)}

    assert len(urls) == 2
    assert len(list(box.simulator.files.folder.glob("*.mp4"))) == 1


def test_longest_video_takes_little_work(tmp_path: Path):
    began = time.process_time()

    encode(tmp_path / "long.mp4", Shape(640, 360, Decimal(15), audio=True))

    took_s = time.process_time() - began
    # Said in work, for a second of one processor is several of another.
    assert took_s < 8 * sum(timeit.repeat(number=10_000_000, repeat=2, timer=time.process_time))
    assert length_of(tmp_path / "long.mp4") == 15


def test_what_is_no_video_has_no_length(tmp_path: Path):
    (tmp_path / "text").write_text("not a film")

    assert length_of(tmp_path / "text") is None
