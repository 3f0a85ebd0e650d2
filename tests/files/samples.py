"""Tiny files of each kind."""

import io
import wave
import zlib

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6300010000050001"
    "0d0a2db40000000049454e44ae426082"
)
GIF = bytes.fromhex("47494638396101000100800000ffffff00000021f90401000000002c00000000010001000002024401003b")
WEBP = bytes.fromhex("524946461a000000574542505650384c0d0000002f00000010071011118888fe0700")
JPEG = bytes.fromhex("ffd8ffe000104a46494600010101004800480000ffd9")
MP4 = bytes.fromhex("0000001c6674797069736f6d0000020069736f6d69736f326d703431") + b"\0\0\0\x08mdat"
MOV = bytes.fromhex("000000146674797071742020000000007174202000000008") + b"mdat"
AVIF = b"\0\0\0\x1cftypavif\0\0\0\0mif1avifmiaf"
AVIF_BY_FORM = b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf"
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
HEIC_BY_FORM = b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic"
WEBM = b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\xf2\x81\x04B\xf3\x81\x08B\x82\x84webmB\x87\x81\x04B\x85\x81\x02"
MP3 = b"\xff\xfb\x90\x64" + bytes(64)
MP3_TAGGED = b"ID3\x04\0\0\0\0\0\0" + MP3
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HTML = b"<!doctype html><script>alert(1)</script>"
MATROSKA = b"\x1aE\xdf\xa3\xa3B\x86\x81\x01B\xf7\x81\x01B\xf2\x81\x04B\xf3\x81\x08B\x82\x88matroskaB\x87\x81\x04"


def wav() -> bytes:
    """A tenth of a second of silence."""
    made = io.BytesIO()
    with wave.open(made, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(1600))
    return made.getvalue()


def png_of(size: int) -> bytes:
    """A PNG of *size* bytes, the most of it a chunk of nothing."""
    body = b"zTXt" + bytes(size - len(PNG) - 12)
    chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    return PNG[:33] + chunk + PNG[33:]
