"""data: URIs inside an order become files of their own, so that a job's row never holds megabytes."""

import base64
import binascii
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.routes import InvalidOrder
from app.errors import Fault
from app.files import addresses, queries
from app.files.addresses import Place
from app.files.inbox import Inbox, Received
from app.files.incoming import TAKEN, Incoming
from app.files.kinds import kind

MOST: Final = 64
"""Files that one input may name."""


@dataclass(frozen=True, slots=True)
class Lifted:
    """An input without data: URIs, and the files that they became, not seen by anybody yet."""

    input: dict[str, Any]
    files: tuple[Received, ...] = ()


@asynccontextmanager
async def lifted(inbox: Inbox, tenant_id: UUID, model_input: dict[str, Any], *, limit: int) -> AsyncIterator[Lifted]:
    """
    *model_input* with each data: URI stored as a file, of *limit* bytes together.

    Files that the block doesn't `settle` are cleared at its end. Raises InvalidOrder for what can't be read, and
    FilesFull.
    """
    found = decoded(model_input, limit=limit)
    files: dict[str, Received] = {}
    try:
        for text, content in found.items():
            coming = Incoming(_once(content), inbox.limits)
            files[text] = await inbox.receive(tenant_id, coming, at_most=len(content))
        others = {text: addresses.url_of(file.id) for text, file in files.items()}
        yield Lifted(addresses.swapped(model_input, others), tuple(files.values()))
    finally:
        for file in files.values():
            await inbox.discard(tenant_id, file.id, file.path)


async def settle(session: AsyncSession, inbox: Inbox, tenant_id: UUID, order: Lifted) -> None:
    """Show the lifted files, and keep all that the input names. Raises InvalidOrder for those that aren't there."""
    for file in order.files:
        await inbox.show(session, file)
    places = addresses.own(order.input)
    wanted = {found for place in places if (found := addresses.id_in(place.text)) is not None}
    if len(wanted) > MOST:
        raise _refused([Fault(pointer="/input", code="too_many", detail=f"An input may name up to {MOST} files.")])
    kept = await queries.keep(session, tenant_id, wanted, inbox.kept_for)
    if unknown := [place for place in places if addresses.id_in(place.text) not in kept]:
        detail = "No file of yours has this address; upload it with POST /v1/files."
        raise _refused([_fault(place, "unknown_file", detail) for place in unknown])


def decoded(model_input: Any, *, limit: int) -> Mapping[str, bytes]:
    """The content of each data: URI in *model_input*, by its text. Raises InvalidOrder that names every bad one."""
    found: dict[str, bytes] = {}
    faults: list[Fault] = []
    places = addresses.data_uris(model_input)
    for place in places[:MOST]:
        if place.text in found:
            continue
        try:
            found[place.text] = _content(place.text)
        except _Unreadable as why:
            faults.append(_fault(place, why.code, why.detail))
        if sum(map(len, found.values())) > limit:
            detail = f"The data: URIs of an order may have up to {limit:,} bytes together; use POST /v1/files instead."
            faults.append(_fault(place, "too_large", detail))
            break
    if len(places) > MOST:
        faults.append(Fault(pointer="/input", code="too_many", detail=f"An input may bring up to {MOST} files."))
    if faults:
        raise _refused(faults)
    return found


class _Unreadable(Exception):
    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


def _content(uri: str) -> bytes:
    head, _, text = uri.partition(",")
    if not head.lower().endswith(";base64"):
        raise _Unreadable("malformed", "A data: URI must be in base64: data:image/png;base64,…")
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _Unreadable("malformed", "What follows the comma isn't base64.") from None
    if kind(content) is None:
        raise _Unreadable("unsupported_file", f"Its bytes aren't of a kind that models take. {TAKEN}")
    return content


def _fault(place: Place, code: str, detail: str) -> Fault:
    return Fault(pointer=f"/input{place.pointer}", code=code, detail=detail)


def _refused(faults: list[Fault]) -> InvalidOrder:
    return InvalidOrder(errors=faults)


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
