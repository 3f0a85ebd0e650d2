"""
What an endpoint takes: fal's own check of an input, and the video an accepted input asks for.

Kling's rules only, by family and task; any other app takes anything. fal checks when a request runs, never
at submit, and its pydantic apps ignore fields they don't know.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from app.simulator.tariff import KLING

ASPECTS: Final = {"16:9": (640, 360), "9:16": (360, 640), "1:1": (480, 480)}
LONGEST_PROMPT: Final = 2500
SHOTS: Final = 6

Problem = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rules:
    """What one Kling endpoint asks for."""

    durations: tuple[str, ...] = ("5", "10")
    prompt: bool = True
    shots: bool = False
    """Takes `multi_prompt` in place of `prompt`."""
    urls: tuple[str, ...] = ()
    """Fields that must hold a URL."""
    aspects: tuple[str, ...] = ()
    audio: bool | None = None
    """What `generate_audio` is unless said; None = no such field."""
    edits: bool = False
    """The output is as long as the input video."""


def rules_of(endpoint: str) -> Rules | None:
    """The rules of *endpoint*, or None for one that isn't checked."""
    path = endpoint.removeprefix(f"{KLING}/")
    if path == endpoint:
        return None
    family, _, task = path.partition("/")
    if family in {"o1", "o3", "v3"} and "motion-control" not in task:
        return _newer(family, task)
    if task.endswith("text-to-video") and family != "lipsync":
        return Rules(aspects=tuple(ASPECTS), audio=True if family == "v2.6" else None)
    if task.endswith("image-to-video"):
        image = "start_image_url" if family == "v2.6" else "image_url"
        return Rules(urls=(image,), audio=True if family == "v2.6" else None)
    if task.endswith("motion-control"):
        return Rules(prompt=False, urls=("image_url", "video_url"), edits=True)
    return Rules(prompt=task.endswith("elements"), aspects=tuple(ASPECTS))


def _newer(family: str, task: str) -> Rules:
    durations = tuple(str(second) for second in range(3, 11 if family == "o1" else 16))
    audio = None if family == "o1" or "turbo" in task else family == "v3"
    if "video-to-video" in task:
        aspects = () if task.endswith("edit") else ("auto", *ASPECTS)
        return Rules(durations, urls=("video_url",), aspects=aspects, edits=task.endswith("edit"), audio=audio)
    if task.endswith("image-to-video"):
        image = "image_url" if family == "o3" or "turbo" in task else "start_image_url"
        return Rules(durations, shots=family != "o1", urls=(image,), audio=audio)
    return Rules(durations, shots=family != "o1", aspects=tuple(ASPECTS), audio=audio)


def problems(endpoint: str, order: Any) -> list[Problem]:
    """What is wrong with *order*, each as an entry of fal's 422 `detail`."""
    rules = rules_of(endpoint)
    if rules is None:
        return []
    if not isinstance(order, dict):
        return [_problem((), "Input should be a valid dictionary", "dict_type", order)]
    return [
        *_prompt_problems(rules, order),
        *_choice(order, "duration", rules.durations),
        *(_choice(order, "aspect_ratio", rules.aspects) if rules.aspects else ()),
        *_url_problems(rules, order),
        *_type_problems(rules, order),
    ]


def _problem(loc: tuple[str | int, ...], msg: str, kind: str, value: Any, **ctx: Any) -> Problem:
    found = {"loc": ["body", *loc], "msg": msg, "type": kind, "input": value}
    return found | ({"ctx": ctx} if ctx else {}) | {"url": f"https://docs.fal.ai/errors/#{kind}"}


def _missing(order: Mapping[str, Any], field: str) -> Problem:
    return _problem((field,), "Field required", "missing", order)


def _text(loc: tuple[str | int, ...], value: Any) -> Iterator[Problem]:
    if not isinstance(value, str):
        yield _problem(loc, "Input should be a valid string", "string_type", value)
    elif len(value) > LONGEST_PROMPT:
        msg = f"String should have at most {LONGEST_PROMPT} characters"
        yield _problem(loc, msg, "string_too_long", value, max_length=LONGEST_PROMPT)


def _prompt_problems(rules: Rules, order: Mapping[str, Any]) -> Iterator[Problem]:
    prompt, shots = order.get("prompt"), order.get("multi_prompt") if rules.shots else None
    if prompt is None and shots is None:
        if rules.prompt:
            yield _missing(order, "prompt")
    elif prompt is not None and shots is not None:
        msg = "Value error, Only one of prompt and multi_prompt may be given"
        yield _problem((), msg, "value_error", order)
    elif shots is not None:
        yield from _shot_problems(shots)
    else:
        yield from _text(("prompt",), prompt)


def _shot_problems(shots: Any) -> Iterator[Problem]:
    if not isinstance(shots, list):
        yield _problem(("multi_prompt",), "Input should be a valid list", "list_type", shots)
        return
    if not 1 <= len(shots) <= SHOTS:
        kind, limit = ("too_long", {"max_length": SHOTS}) if shots else ("too_short", {"min_length": 1})
        msg = f"List should have 1 to {SHOTS} items"
        yield _problem(("multi_prompt",), msg, f"sequence_{kind}", shots, **limit)
    for place, shot in enumerate(shots):
        loc = ("multi_prompt", place)
        if not isinstance(shot, dict):
            yield _problem(loc, "Input should be a valid dictionary", "dict_type", shot)
        elif "prompt" not in shot:
            yield _problem((*loc, "prompt"), "Field required", "missing", shot)
        else:
            yield from _text((*loc, "prompt"), shot["prompt"])
            yield from _choice(shot, "duration", tuple(str(second) for second in range(1, 16)), loc)
    total = _shots_s(shots)
    if total is not None and not 3 <= total <= 15:
        msg = f"Value error, The shots must last 3 to 15 seconds together, not {total}"
        yield _problem(("multi_prompt",), msg, "value_error", shots)


def _shots_s(shots: list[Any]) -> int | None:
    """Seconds of all shots together, or None when one of them isn't a number."""
    lengths = [shot.get("duration") or "5" for shot in shots if isinstance(shot, dict)]
    return sum(map(int, lengths)) if all(isinstance(one, str) and one.isdecimal() for one in lengths) else None


def _choice(
    order: Mapping[str, Any], field: str, allowed: tuple[str, ...], loc: tuple[str | int, ...] = ()
) -> Iterator[Problem]:
    """Literal[…], as pydantic sees it: the number 5 isn't the string "5"."""
    value = order.get(field)
    if value is not None and (not isinstance(value, str) or value not in allowed):
        names = [f"'{one}'" for one in allowed]
        expected = f"{', '.join(names[:-1])} or {names[-1]}"
        yield _problem((*loc, field), f"Input should be {expected}", "literal_error", value, expected=expected)


def _url_problems(rules: Rules, order: Mapping[str, Any]) -> Iterator[Problem]:
    for field in rules.urls:
        value = order.get(field)
        if value is None:
            yield _missing(order, field)
        elif not isinstance(value, str):
            yield _problem((field,), "Input should be a valid string", "string_type", value)
        elif not value.startswith(("https://", "http://", "data:")):
            yield _problem((field,), "Failed to download the file", "file_download_error", value)


def _type_problems(rules: Rules, order: Mapping[str, Any]) -> Iterator[Problem]:
    audio, scale = order.get("generate_audio"), order.get("cfg_scale")
    if rules.audio is not None and audio is not None and not isinstance(audio, bool):
        yield _problem(("generate_audio",), "Input should be a valid boolean", "bool_type", audio)
    if scale is None:
        return
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        yield _problem(("cfg_scale",), "Input should be a valid number", "float_type", scale)
    elif not 0 <= scale <= 1:
        kind, limit = ("less_than_equal", {"le": 1.0}) if scale > 1 else ("greater_than_equal", {"ge": 0.0})
        yield _problem(("cfg_scale",), f"Input should be {kind.replace('_', ' ')} to the limit", kind, scale, **limit)


@dataclass(frozen=True, slots=True)
class Shape:
    """What tells one test clip from another; requests of one shape share a file."""

    width: int
    height: int
    seconds: Decimal
    audio: bool
    tint: int = 0


def shape_of(endpoint: str, order: Mapping[str, Any], *, input_s: Decimal | None = None) -> Shape:
    """The video that a checked *order* asks for; *input_s* is the length of its input video, where known."""
    rules = rules_of(endpoint) or Rules()
    width, height = ASPECTS.get(str(order.get("aspect_ratio")), ASPECTS["16:9"])
    audio = bool(order["generate_audio"]) if order.get("generate_audio") is not None else bool(rules.audio)
    tint = sum(str(order.get("prompt", "")).encode()[:64]) % 4
    return Shape(width, height, _seconds(rules, order, input_s), audio, tint)


def _seconds(rules: Rules, order: Mapping[str, Any], input_s: Decimal | None) -> Decimal:
    if rules.edits:
        return input_s or Decimal(5)
    shots = order.get("multi_prompt") if rules.shots else None
    if isinstance(shots, list):
        return Decimal(_shots_s(shots) or 5)
    try:
        asked = Decimal(str(order.get("duration") or "5"))
    except InvalidOperation:
        return Decimal(5)
    return asked if asked.is_finite() and 0 < asked <= 60 else Decimal(5)
