"""What a file is, told from its first bytes: whatever its sender says, only these are taken (pure)."""

from collections.abc import Mapping
from typing import Final

HEAD: Final = 64
"""Bytes that are enough to tell."""
ENDINGS: Final[Mapping[str, str]] = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "image/avif": ".avif",
    "image/heic": ".heic",
    "video/mp4": ".mp4",
    "video/quicktime": ".mov",
    "video/webm": ".webm",
    "audio/mpeg": ".mp3",
    "audio/wav": ".wav",
}
SIGNATURES: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"ID3", "audio/mpeg"),
)
BRANDS: Final[Mapping[bytes, str]] = {
    b"avif": "image/avif",
    b"avis": "image/avif",
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "image/heic"),
    b"qt  ": "video/quicktime",
    **dict.fromkeys(
        (b"isom", b"iso2", b"iso3", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42", b"avc1", b"dash", b"M4V ", b"MSNV"),
        "video/mp4",
    ),
}


def kind(head: bytes) -> str | None:
    """The content type of a file that begins with *head*; None if it isn't one that models take."""
    for signature, found in SIGNATURES:
        if head.startswith(signature):
            return found
    if head[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"WAVE": "audio/wav"}.get(head[8:12])
    if head[:4] == b"\x1aE\xdf\xa3" and b"webm" in head:
        return "video/webm"
    if head[4:8] == b"ftyp":
        return _iso_media(head)
    return "audio/mpeg" if _is_mpeg_audio(head) else None


def _iso_media(head: bytes) -> str | None:
    """By the major brand; AVIF is often written under HEIF's general one, and says so among those it fits too."""
    size = int.from_bytes(head[:4], "big")
    others = [head[at : at + 4] for at in range(16, min(size, len(head)), 4)]
    found = BRANDS.get(head[8:12])
    if head[8:12] in {b"mif1", b"msf1"} and any(other in {b"avif", b"avis"} for other in others):
        return "image/avif"
    return found or next((BRANDS[other] for other in others if other in BRANDS), None)


def _is_mpeg_audio(head: bytes) -> bool:
    """Whether it begins with the header of an MPEG layer III frame."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return False
    bit_rate, sampling = head[2] >> 4, head[2] >> 2 & 3
    return bit_rate not in {0, 15} and sampling != 3
