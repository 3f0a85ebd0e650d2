"""What happens while a request runs: its input is checked, its video made, its price set."""

from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Any, Final

from app.simulator import tariff
from app.simulator.clips import Clips
from app.simulator.config import SimulatorConfig
from app.simulator.files import Files
from app.simulator.inputs import Problem, Shape, problems, rules_of, shape_of
from app.simulator.outcomes import failure, no_such_path, refused, request_error, success
from app.simulator.queue import Queue
from app.simulator.requests import Request, Result

URL_FIELDS: Final = ("image_url", "start_image_url", "end_image_url", "tail_image_url", "video_url", "audio_url")

Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Runs:
    """The runners of the account's requests."""

    def __init__(self, config: SimulatorConfig, queue: Queue, files: Files, clips: Clips, spawn: Spawn) -> None:
        self._config = config
        self._queue = queue
        self._files = files
        self._clips = clips
        self._spawn = spawn

    def started(self, request: Request) -> Result | None:
        """A runner took *request*: check the input and begin with the video. An answer ends it here."""
        endpoint, order = request.endpoint, request.order()
        if endpoint.startswith(f"{tariff.KLING}/") and endpoint not in self._config.prices:
            return no_such_path(endpoint.removeprefix(f"{tariff.KLING}/"))
        found = problems(endpoint, order) or self._unreachable(order)
        if found:
            return refused(found)
        if request.script.outcome == "ok" and not _edits(request):
            self._clips.make(_delivered(request, shape_of(endpoint, _fields(order))))
        return None

    def done(self, request: Request) -> None:
        """The time of *request* is over: end it, now or once its video is there."""
        order = _fields(request.order())
        if _edits(request):
            self._spawn(self._finish_edit(request, request.turn, order))
            return
        shape = shape_of(request.endpoint, order)
        if request.script.outcome != "ok" or self._clips.ready(_delivered(request, shape)) is not None:
            self._finish(request, order, shape)
        else:
            self._spawn(self._finish_late(request, request.turn, order, shape))

    def stopped(self, request: Request) -> Result:
        """A running *request* is cancelled in time; some say that it costs all the same."""
        result = request_error("client_cancelled")
        if request.script.cancel == "stop_billed":
            order = _fields(request.order())
            result.units, result.amount = self._charge(request, order, shape_of(request.endpoint, order))
        return result

    def _unreachable(self, order: Any) -> list[Problem]:
        """Input files that are said to be on our CDN and aren't."""
        found: list[Problem] = []
        for name in URL_FIELDS if isinstance(order, dict) else ():
            ours, file = self._files.behind(order.get(name))
            if ours and file is None:
                problem = {"loc": ["body", name], "msg": "Failed to download the file"}
                found.append(problem | {"type": "file_download_error", "input": order[name]})
        return found

    async def _finish_late(self, request: Request, turn: int, order: dict[str, Any], shape: Shape) -> None:
        if request.script.outcome == "ok":
            await self._clips.make(_delivered(request, shape))
        # A cancel may have ended it meanwhile.
        if request.turn == turn:
            self._finish(request, order, shape)

    async def _finish_edit(self, request: Request, turn: int, order: dict[str, Any]) -> None:
        _, file = self._files.behind(order.get("video_url"))
        input_s = await self._clips.length(self._files.folder / file.name) if file is not None else None
        if request.turn == turn:
            await self._finish_late(request, turn, order, shape_of(request.endpoint, order, input_s=input_s))

    def _finish(self, request: Request, order: dict[str, Any], shape: Shape) -> None:
        units, amount = self._charge(request, order, shape)
        script = request.script
        if script.outcome == "ok":
            file = self._publish(request, _delivered(request, shape))
            result = success(file, pad=script.pad, units=units, amount=amount)
        else:
            result = failure(script.outcome, order, units=units, amount=amount)
            if script.billed is not None:
                result.amount = script.billed
        self._queue.end(request, result)

    def _charge(self, request: Request, order: dict[str, Any], shape: Shape) -> tuple[Decimal, Decimal]:
        units = tariff.units(request.endpoint, order, seconds=shape.seconds, audio=shape.audio)
        amount = request.script.billed
        return units, units * self._config.unit_price(request.endpoint) if amount is None else amount

    def _publish(self, request: Request, shape: Shape) -> dict[str, Any]:
        source = self._clips.ready(shape)
        assert source is not None, "the video is made before a request finishes"  # noqa: S101
        path = self._files.path(request.request_id, "output.mp4")
        kept_s = request.output_kept_s if request.script.file_s is None else request.script.file_s
        file = self._files.put(path, source, "video/mp4", size=source.stat().st_size, kept_s=kept_s)
        url = self._files.url(path)
        return {"url": url, "content_type": "video/mp4", "file_name": "output.mp4", "file_size": file.size}


def _fields(order: Any) -> dict[str, Any]:
    return order if isinstance(order, dict) else {}


def _edits(request: Request) -> bool:
    rules = rules_of(request.endpoint)
    return rules is not None and rules.edits


def _delivered(request: Request, shape: Shape) -> Shape:
    """*shape*, or what a script delivers in its place."""
    if request.script.video_s is None:
        return shape
    seconds = Decimal(str(request.script.video_s))
    return Shape(shape.width, shape.height, seconds, shape.audio, shape.tint)
