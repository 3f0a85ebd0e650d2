"""What a video that can't be read says of its length: nothing, and least of all a price."""

import httpx
import pytest

from app.media.measure import Measure, Unmeasured

OUTPUT = {"video": {"url": "https://v3b.fal.media/files/b/0a8d04e2/x.mp4"}}


def over(answer: httpx.Response | Exception) -> Measure:
    def serve(_: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Measure(httpx.AsyncClient(transport=httpx.MockTransport(serve)))


@pytest.mark.parametrize(
    "trouble", [httpx.Response(503), httpx.Response(302), httpx.Response(403), httpx.ReadTimeout("x")], ids=str
)
async def test_trouble_on_the_way_is_no_length(trouble):
    with pytest.raises(Unmeasured):
        await over(trouble).seconds(OUTPUT)


@pytest.mark.parametrize("code", [404, 410])
async def test_a_file_that_is_gone_will_never_tell(code):
    assert await over(httpx.Response(code)).seconds(OUTPUT) is None


@pytest.mark.parametrize("output", [None, {}, {"video": None}, {"images": [{"url": "x"}]}])
async def test_an_output_without_a_video_has_no_length(output):
    assert await over(httpx.Response(200)).seconds(output) is None
