"""data: URIs inside an order become files of their own, so that a job's row never holds megabytes."""

import base64
import binascii
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.routes import InvalidOrder
from app.db import Database
from app.errors import Fault
from app.files import addresses, queries
from app.files.addresses import Place
from app.files.inbox import Inbox, Received
from app.files.incoming import TAKEN, Incoming
from app.files.kinds import kind
from app.tenants.caller import Caller

MOST: Final = 64
"""Files that one input may name."""


@dataclass(frozen=True, slots=True)
class Lifted:
    """An input without data: URIs, and the files that they became, not seen by anybody yet."""

    input: dict[str, Any]
    files: tuple[Received, ...] = ()


@asynccontextmanager
async def lifted(
    inbox: Inbox, tenant_id: UUID, model_input: dict[str, Any], *, end_user: str | None, limit: int
) -> AsyncIterator[Lifted]:
    """
    *model_input* with each data: URI stored as a file of *end_user*'s, of *limit* bytes together.

    Files that the block doesn't `settle` are cleared at its end. Raises InvalidOrder for what can't be read, and
    FilesFull.
    """
    found = decoded(model_input, limit=limit)
    files: dict[str, Received] = {}
    try:
        for text, content in found.items():
            coming = Incoming(_once(content), inbox.limits)
            files[text] = await inbox.receive(tenant_id, coming, at_most=len(content), end_user=end_user)
        others = {text: addresses.url_of(file.id) for text, file in files.items()}
        yield Lifted(addresses.swapped(model_input, others), tuple(files.values()))
    finally:
        for file in files.values():
            await inbox.discard(tenant_id, file.id, file.path)


async def settle(session: AsyncSession, inbox: Inbox, caller: Caller, order: Lifted) -> None:
    """
    Show the lifted files, and keep all that the input names.

    Raises InvalidOrder for those that aren't there, or not for *caller* to use.
    """
    for file in order.files:
        await inbox.show(session, file)
    wanted = addresses.ids(order.input)
    kept = await queries.keep(session, caller, wanted, inbox.kept_for) if len(wanted) <= MOST else set()
    if faults := _unusable(order.input, kept):
        raise InvalidOrder(errors=faults)


async def faults(db: Database, caller: Caller, model_input: dict[str, Any], *, limit: int) -> list[Fault]:
    """Everything for which `lifted` and `settle` would refuse *model_input*; nothing is stored or kept."""
    _, unreadable = _decoded(model_input, limit=limit)
    wanted, known = addresses.ids(model_input), set()
    if 0 < len(wanted) <= MOST:
        async with db.reading_as(caller.tenant_id) as session:
            known = await queries.known(session, caller, wanted)
    return [*unreadable, *_unusable(model_input, known)]


def decoded(model_input: Any, *, limit: int) -> Mapping[str, bytes]:
    """The content of each data: URI in *model_input*, by its text. Raises InvalidOrder that names every bad one."""
    found, faults = _decoded(model_input, limit=limit)
    if faults:
        raise InvalidOrder(errors=faults)
    return found


def _unusable(model_input: Any, usable: Collection[UUID]) -> list[Fault]:
    if len(addresses.ids(model_input)) > MOST:
        return [Fault(pointer="/input", code="too_many", detail=f"An input may name up to {MOST} files.")]
    detail = "No file of yours has this address; upload it with POST /v1/files."
    unknown = (place for place in addresses.own(model_input) if addresses.id_in(place.text) not in usable)
    return [_fault(place, "unknown_file", detail) for place in unknown]


def _decoded(model_input: Any, *, limit: int) -> tuple[dict[str, bytes], list[Fault]]:
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
    return found, faults


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


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
