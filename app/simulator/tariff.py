"""What fal charges: unit prices per endpoint, and how many units a video is."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

KLING: Final = "fal-ai/kling-video"
DEFAULT_PRICE: Final = Decimal("0.10")


BOTH: Final = ("text-to-video", "image-to-video")
REFERENCE: Final = ("reference-to-video", "video-to-video/edit", "video-to-video/reference")
EDITS: Final = ("video-to-video/edit", "video-to-video/reference")

# Unit prices as of the contract's section 6. `v1/pro` has none there: its price is invented.
TABLE: Final[tuple[tuple[str, tuple[str, ...], str], ...]] = (
    ("o3/4k", (*BOTH, *REFERENCE), "0.42"),
    ("o3/pro", (*BOTH, *REFERENCE), "0.14"),
    ("o3/standard", (*BOTH, *REFERENCE), "0.14"),
    ("v3/4k", BOTH, "0.42"),
    ("v3/pro", BOTH, "0.14"),
    ("v3/standard", BOTH, "0.14"),
    ("v3/turbo/pro", BOTH, "0.14"),
    ("v3/turbo/standard", BOTH, "0.112"),
    ("o1", ("image-to-video", "reference-to-video"), "0.112"),
    ("o1/standard", ("image-to-video", "reference-to-video"), "0.084"),
    ("o1", EDITS, "0.168"),
    ("o1/standard", EDITS, "0.126"),
    ("v2.6/pro", BOTH, "0.07"),
    ("v2.5-turbo/pro", BOTH, "0.07"),
    ("v2.5-turbo/standard", ("image-to-video",), "0.042"),
    ("v2.1/master", BOTH, "0.28"),
    ("v2.1/pro", ("image-to-video",), "0.098"),
    ("v2.1/standard", ("image-to-video",), "0.056"),
    ("v2/master", BOTH, "0.28"),
    ("v1.6/pro", (*BOTH, "elements", "effects"), "0.098"),
    ("v1.6/standard", (*BOTH, "elements", "effects"), "0.056"),
    ("v1.5/pro", (*BOTH, "effects"), "0.10"),
    ("v1/standard", (*BOTH, "effects"), "0.045"),
    ("v1/pro", BOTH, "0.10"),
    ("v3/pro", ("motion-control",), "0.168"),
    ("v3/standard", ("motion-control",), "0.126"),
    ("v2.6/pro", ("motion-control",), "0.112"),
    ("v2.6/standard", ("motion-control",), "0.07"),
    ("ai-avatar/v2", ("pro",), "0.115"),
    ("ai-avatar/v2", ("standard",), "0.0562"),
    ("v1/pro", ("ai-avatar",), "0.115"),
    ("v1/standard", ("ai-avatar",), "0.0562"),
    ("lipsync", ("audio-to-video", "text-to-video"), "0.014"),
    ("v1", ("tts",), "0.007"),
)

UNIT_PRICES: Final[Mapping[str, Decimal]] = {
    f"{KLING}/{version}/{task}": Decimal(price) for version, tasks, price in TABLE for task in tasks
} | {f"{KLING}/create-voice": Decimal("0.007"), f"{KLING}/video-to-audio": Decimal("0.007")}

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
