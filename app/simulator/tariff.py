"""What fal charges: unit prices per endpoint, and how many units a video is."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

KLING: Final = "fal-ai/kling-video"
DEFAULT_PRICE: Final = Decimal("0.10")


def _prices() -> dict[str, Decimal]:
    """Unit prices as of the contract's section 6; `v1/pro` has none there, so it gets an invented one."""
    table: dict[str, str] = {}
    for family in ("o3", "v3"):
        for tier, price in (("4k", "0.42"), ("pro", "0.14"), ("standard", "0.14")):
            for task in ("text-to-video", "image-to-video"):
                table[f"{family}/{tier}/{task}"] = price
    for tier, price in (("4k", "0.42"), ("pro", "0.14"), ("standard", "0.14")):
        table[f"o3/{tier}/reference-to-video"] = price
        table[f"o3/{tier}/video-to-video/edit"] = price
        table[f"o3/{tier}/video-to-video/reference"] = price
    for tier, price in (("pro", "0.14"), ("standard", "0.112")):
        for task in ("text-to-video", "image-to-video"):
            table[f"v3/turbo/{tier}/{task}"] = price
    for tier, price in (("", "0.112"), ("standard/", "0.084")):
        table[f"o1/{tier}image-to-video"] = table[f"o1/{tier}reference-to-video"] = price
    for tier, price in (("", "0.168"), ("standard/", "0.126")):
        table[f"o1/{tier}video-to-video/edit"] = table[f"o1/{tier}video-to-video/reference"] = price
    older = {
        "v2.6/pro": "0.07",
        "v2.5-turbo/pro": "0.07",
        "v2.5-turbo/standard": "0.042",
        "v2.1/master": "0.28",
        "v2.1/pro": "0.098",
        "v2.1/standard": "0.056",
        "v2/master": "0.28",
        "v1.6/pro": "0.098",
        "v1.6/standard": "0.056",
        "v1.5/pro": "0.10",
        "v1/standard": "0.045",
        "v1/pro": "0.098",
    }
    for version, price in older.items():
        table[f"{version}/text-to-video"] = table[f"{version}/image-to-video"] = price
    for version in ("v1.6/pro", "v1.6/standard"):
        table[f"{version}/elements"] = older[version]
    for version in ("v1.6/pro", "v1.6/standard", "v1.5/pro", "v1/standard"):
        table[f"{version}/effects"] = older[version]
    return {f"{KLING}/{path}": Decimal(price) for path, price in (table | OTHERS).items()}


OTHERS: Final = {
    "v3/pro/motion-control": "0.168",
    "v3/standard/motion-control": "0.126",
    "v2.6/pro/motion-control": "0.112",
    "v2.6/standard/motion-control": "0.07",
    "ai-avatar/v2/pro": "0.115",
    "ai-avatar/v2/standard": "0.0562",
    "v1/pro/ai-avatar": "0.115",
    "v1/standard/ai-avatar": "0.0562",
    "lipsync/audio-to-video": "0.014",
    "lipsync/text-to-video": "0.014",
    "create-voice": "0.007",
    "v1/tts": "0.007",
    "video-to-audio": "0.007",
}

UNIT_PRICES: Final[Mapping[str, Decimal]] = _prices()

# Units per second without audio, with audio, with a named voice. fal's unit is not a second: pro and
# standard carry one price of 0.14 and differ by these.
UNITS_PER_SECOND: Final = {
    "o3/pro/": ("0.8", "1", "1"),
    "o3/standard/": ("0.6", "0.8", "0.8"),
    "v3/pro/": ("0.8", "1.2", "1.4"),
    "v3/standard/": ("0.6", "0.9", "1.1"),
    "v2.6/pro/": ("1", "2", "2"),
}
TIERED: Final = ("text-to-video", "image-to-video", "reference-to-video")


def units(endpoint: str, order: Mapping[str, Any], *, seconds: Decimal, audio: bool) -> Decimal:
    """The units fal counts for a video of *seconds* made by *endpoint*."""
    path = endpoint.removeprefix(f"{KLING}/")
    if endpoint.endswith(TIERED):
        for prefix, (silent, spoken, voiced) in UNITS_PER_SECOND.items():
            if path.startswith(prefix):
                per_second = silent if not audio else voiced if order.get("voice_ids") else spoken
                return seconds * Decimal(per_second)
    if path in {"create-voice", "v1/tts"}:
        return Decimal(1)
    return seconds
