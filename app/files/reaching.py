"""
How fal gets at the files of an input: by a signed link to us, where fal can reach us, else by an upload to fal.

What fal is told is told anew for each attempt, and written on it before anything is sent: a lost answer is looked
for by exactly what was sent.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app import clock
from app.db import Database
from app.fal.client import Unanswered
from app.fal.storage import FalStorage
from app.files import addresses
from app.files.kinds import ENDINGS
from app.files.tables import File
from app.media import links
from app.media import queries as media
from app.media.links import Link
from app.media.storage import FAILURES, Storage

THERE_FOR: Final = timedelta(days=7)
"""How long fal can get at a file: a job may wait in its queue."""
STILL_FOR: Final = timedelta(days=3)
"""How long an earlier upload must still be there to be named again."""


class Unreached(Exception):
    """A file couldn't be made reachable for fal just now; the text says why."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Makes files reachable for fal."""

    db: Database
    storage: Storage
    public_url: str | None
    link_key: bytes | None

    async def urls(self, tenant_id: UUID, model_input: Any, fal: FalStorage) -> dict[str, str]:
        """
        For each address of ours in *model_input* one that *fal* can fetch; empty if there is none. Raises Unreached.

        Call it with no transaction open: it may upload.
        """
        wanted = addresses.ids(model_input)
        if not wanted:
            return {}
        files = await self.db.run(partial(_files, tenant_id=tenant_id, file_ids=wanted))
        if len(files) < len(wanted):
            raise Unreached("A file of its input is gone.")
        return {addresses.url_of(file.id): await self._url(file, fal) for file in files}

    async def _url(self, file: File, fal: FalStorage) -> str:
        if self.public_url is not None:
            return await self._link(self.public_url, file)
        if file.fal_url is not None and file.fal_url_until is not None and file.fal_url_until > clock.now() + STILL_FOR:
            # Whichever account it was uploaded with: whoever knows the address may fetch it.
            return file.fal_url
        return await self._upload(file, fal)

    async def _link(self, public_url: str, file: File) -> str:
        key = self.link_key if self.link_key is not None else await self.db.run(media.link_key)
        return f"{public_url}/files/{links.token(key, link_to(file, THERE_FOR))}"

    async def _upload(self, file: File, fal: FalStorage) -> str:
        assert file.content_type is not None, "a stored file has its type"  # noqa: S101
        until = clock.now() + THERE_FOR
        try:
            parts = await self.storage.stream(file.path, 0, file.size)
            url = await fal.upload(
                parts,
                size=file.size,
                content_type=file.content_type,
                name=f"{file.id}{ENDINGS[file.content_type]}",
                kept_s=int(THERE_FOR.total_seconds()),
            )
        except Unanswered as error:
            raise Unreached(f"fal takes no upload ({error}).") from error
        except FAILURES as error:
            raise Unreached(f"Our copy of a file can't be read ({type(error).__name__}).") from error
        await self.db.run(partial(_remember, file=file, url=url, until=until))
        return url


def link_to(file: File, valid: timedelta) -> Link:
    """What a link to *file* signs. An output's number begins at 1, so no link to one passes for the other."""
    return Link(file.tenant_id, file.id, 0, clock.now() + valid)


async def _files(session: AsyncSession, tenant_id: UUID, file_ids: set[UUID]) -> list[File]:
    wanted = select(File).where(File.tenant_id == tenant_id, File.id.in_(file_ids), File.stored_at.is_not(None))
    return list(await session.scalars(wanted.order_by(File.id)))


async def _remember(session: AsyncSession, file: File, url: str, until: datetime) -> None:
    await session.execute(
        update(File)
        .where(File.tenant_id == file.tenant_id, File.id == file.id)
        .values(fal_url=url, fal_url_until=until)
        .execution_options(synchronize_session=False)
    )
