"""The one file of a multipart form, as it comes: nothing of it is held in memory or on disk."""

from collections.abc import AsyncIterator
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from app.errors import Fault, InvalidRequest

MOST_HEADERS: Final = 4096


class Form:
    """
    A multipart body with one file in it; other fields are passed over.

    `name` is what its sender calls the file, once the first bytes of it have come.
    """

    def __init__(self, request: Request) -> None:
        self._body = request.stream()
        self._came: list[bytes] = []
        self._headers: list[tuple[bytes, bytes]] = []
        self._field, self._value, self._header_size = b"", b"", 0
        self._files, self._here, self._whole = 0, False, False
        self.name: str | None = None
        boundary = parse_options_header(request.headers.get("content-type", ""))[1].get(b"boundary", b"")
        if not boundary:
            raise _malformed("The Content-Type names no boundary.")
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_end": self._end,
            },
        )

    async def file(self) -> AsyncIterator[bytes]:
        """The file's bytes. Raises InvalidRequest for a form that is broken or has several files."""
        try:
            async for part in self._body:
                self._parser.write(part)
                if self._came:
                    yield b"".join(self._came)
                    self._came.clear()
        except FormParserError:
            raise _malformed("The form isn't well-formed.") from None
        if not self._whole:
            raise _malformed("The form ends before its last boundary.")

    def _begin(self) -> None:
        self._headers, self._field, self._value, self._header_size = [], b"", b"", 0

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += self._within(data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += self._within(data[start:end])

    def _within(self, more: bytes) -> bytes:
        self._header_size += len(more)
        if self._header_size > MOST_HEADERS:
            raise _malformed("The headers of a part are too long.")
        return more

    def _header_end(self) -> None:
        self._headers.append((self._field.lower(), self._value))
        self._field, self._value = b"", b""

    def _headers_finished(self) -> None:
        said = next((value for name, value in self._headers if name == b"content-disposition"), b"")
        options = parse_options_header(said)[1]
        self._here = b"filename" in options
        if self._here:
            self._files += 1
            self.name = options[b"filename"].decode(errors="replace")
        if self._files > 1:
            raise _malformed("A form may have one file; send the others by themselves.")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._here:
            self._came.append(data[start:end])

    def _end(self) -> None:
        self._whole = True


def _malformed(detail: str) -> InvalidRequest:
    return InvalidRequest(errors=[Fault(pointer="", code="malformed_form", detail=detail)])
