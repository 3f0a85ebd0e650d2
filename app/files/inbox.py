"""
Where files come in: a row that says where the bytes will be, the bytes, and then the row that shows them.

No transaction is open while bytes move. What is broken off is cleared at once; what a crash leaves is found by
its row and cleared by the pruner.
"""

import asyncio
import re
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Database, new_id
from app.errors import AppError, Unavailable
from app.files import queries
from app.files.incoming import Incoming
from app.files.tables import File
from app.media.download import Limits
from app.media.storage import FAILURES, Storage
from app.tenants.tables import Tenant

log = structlog.get_logger()

UNSAFE: Final = re.compile(r"[^\w .()+-]+", re.ASCII)
LONGEST_NAME: Final = 100
SLACK: Final = timedelta(minutes=10)
"""How long past the longest upload its row is left alone."""


class FilesFull(AppError):
    """There is no room for another file; delete some, or wait until those not used expire."""

    status, code = 409, "files_full"


class FileInUse(AppError):
    """An unfinished job uses this file."""

    status, code = 409, "file_in_use"


@dataclass(frozen=True, slots=True)
class Received:
    """A file whose bytes are in storage, and whose row doesn't show it yet."""

    tenant_id: UUID
    id: UUID
    path: str
    name: str | None
    size: int
    sha256: bytes
    content_type: str


@dataclass(frozen=True, slots=True)
class Inbox:
    """Takes files into storage, within what a tenant may have."""

    db: Database
    storage: Storage
    kept_for: timedelta
    most_files: int
    most_bytes: int
    limits: Limits = field(default_factory=Limits)

    async def receive(
        self, tenant_id: UUID, incoming: Incoming, *, at_most: int, end_user: str | None = None
    ) -> Received:
        """
        The file that *incoming* brings for *end_user*, of *at_most* bytes, whole in storage.

        Raises FilesFull, Unavailable, and whatever the parts raise; then nothing of it is left.
        """
        row = await self.db.run(partial(self._make_room, tenant_id=tenant_id, size=at_most, end_user=end_user))
        try:
            await self._store(row.path, incoming)
        except BaseException:
            # A caller who goes away cancels this request, and must not cancel its cleaning up.
            await asyncio.shield(self.discard(tenant_id, row.id, row.path))
            raise
        assert incoming.content_type is not None, "known before the first byte is stored"  # noqa: S101
        return Received(tenant_id, row.id, row.path, None, incoming.size, incoming.sha256, incoming.content_type)

    async def _store(self, path: str, incoming: Incoming) -> None:
        try:
            await self.storage.put(path, incoming.checked(), "application/octet-stream")
            kept = await self.storage.size(path)
        except FAILURES as error:
            log.warning("upload_not_stored", why=type(error).__name__)
            raise Unavailable("Our storage can't take the file.", headers={"Retry-After": "5"}) from error
        if kept != incoming.size:
            raise Unavailable("Our storage kept less than came.")

    async def show(self, session: AsyncSession, file: Received) -> File:
        """Let a received file be seen and used. Raises Unavailable if the pruner took it meanwhile."""
        shown = await session.scalar(
            update(File)
            .where(File.tenant_id == file.tenant_id, File.id == file.id)
            .values(
                name=file.name,
                size=file.size,
                sha256=file.sha256,
                content_type=file.content_type,
                stored_at=func.coalesce(File.stored_at, func.now()),
                prune_at=func.now() + self.kept_for,
            )
            .returning(File)
            .execution_options(populate_existing=True)
        )
        if shown is None:
            raise Unavailable("The file took too long.")
        return shown

    async def delete(self, tenant_id: UUID, file_id: UUID) -> bool:
        """Let go of a file; False if there is none. Raises FileInUse."""
        path = await self.db.run(partial(self._hide, tenant_id=tenant_id, file_id=file_id))
        if path is None:
            return False
        await self.discard(tenant_id, file_id, path)
        return True

    async def discard(self, tenant_id: UUID, file_id: UUID, path: str) -> None:
        """Clear what nobody sees: first the bytes, then the row. What can't be cleared now, the pruner clears."""
        try:
            await remove(self.db, self.storage, tenant_id, file_id, path)
        except (*FAILURES, SQLAlchemyError) as error:
            log.warning("file_not_cleared", file_id=str(file_id), why=type(error).__name__)

    async def _make_room(self, session: AsyncSession, tenant_id: UUID, size: int, end_user: str | None = None) -> File:
        # Uploads of one tenant queue here for a moment, or two at once would share the last free place.
        await session.execute(select(Tenant.id).where(Tenant.id == tenant_id).with_for_update(key_share=True))
        count, taken = await queries.taken(session, tenant_id)
        if count >= self.most_files:
            raise FilesFull(f"You have {count:,} files of at most {self.most_files:,}.")
        if taken + size > self.most_bytes:
            raise FilesFull(f"Your files take {taken:,} bytes of at most {self.most_bytes:,}; this one {size:,}.")
        file_id = new_id()
        longest = timedelta(seconds=self.limits.whole_s) + SLACK
        row = File(
            tenant_id=tenant_id,
            id=file_id,
            end_user=end_user,
            path=f"{tenant_id}/files/{file_id}",
            size=size,
            prune_at=func.now() + longest,
        )
        session.add(row)
        await session.flush()
        return row

    async def _hide(self, session: AsyncSession, tenant_id: UUID, file_id: UUID) -> str | None:
        mine = select(File).where(File.tenant_id == tenant_id, File.id == file_id, File.stored_at.is_not(None))
        file = await session.scalar(mine.with_for_update())
        if file is None:
            return None
        if await queries.in_use(session, tenant_id, file_id):
            raise FileInUse
        file.stored_at = None
        file.prune_at = func.now()
        await session.flush()
        return file.path


async def remove(db: Database, storage: Storage, tenant_id: UUID, file_id: UUID, path: str) -> None:
    """Remove the bytes and then the row of a file that isn't seen. Raises what storage or database raise."""
    # A commit that shows it may be under way although its answer got lost: the lock waits for what becomes of it.
    seen = select(File.stored_at).where(File.tenant_id == tenant_id, File.id == file_id).with_for_update()
    async with db.session() as session:
        if await session.scalar(seen) is not None:
            return
    await storage.clear(path)

    async def forget(session: AsyncSession) -> None:
        unseen = delete(File).where(File.tenant_id == tenant_id, File.id == file_id, File.stored_at.is_(None))
        await session.execute(unseen.execution_options(synchronize_session=False))

    await db.run(forget)


def safe_name(name: str | None) -> str | None:
    """*name* without folders and what else has a meaning somewhere; None if nothing is left."""
    last = re.split(r"[/\\]", name or "")[-1]
    return UNSAFE.sub("_", last).strip(" ._")[-LONGEST_NAME:] or None
