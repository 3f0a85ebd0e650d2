"""Letting go of files: those that nobody used for long, and what broken-off uploads and deletions left."""

from collections.abc import Sequence
from functools import partial
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import Row, func, select, tuple_, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import Database
from app.files.inbox import remove
from app.files.tables import File, FileUse
from app.media.storage import FAILURES, Storage

log = structlog.get_logger()

EVERY_S: Final = 86_400.0


async def prune_all(db: Database, storage: Storage) -> int:
    """Remove every file whose time is over and that no unfinished job uses; how many were removed."""
    removed = 0
    while some := await prune(db, storage):
        removed += some
    return removed


async def prune(db: Database, storage: Storage, *, limit: int = 100) -> int:
    """
    Remove up to *limit* files whose time is over and that no unfinished job uses; how many were removed.

    They are hidden first, so that no order can name one while its bytes go. Dying in between leaves a hidden row,
    which the next call finds.
    """
    removed = 0
    for tenant_id, file_id, path in await db.run(partial(hide, limit=limit)):
        try:
            await remove(db, storage, tenant_id, file_id, path)
            removed += 1
        except (*FAILURES, SQLAlchemyError) as error:
            log.warning("file_not_pruned", file_id=str(file_id), why=type(error).__name__)
    return removed


async def hide(session: AsyncSession, limit: int) -> Sequence[Row[UUID, UUID, str]]:
    """Let nobody see up to *limit* files whose time is over any more; which they are."""
    used = select(FileUse.job_id).where(FileUse.tenant_id == File.tenant_id, FileUse.file_id == File.id)
    # Not EXISTS: Postgres would read every use there is, to join them with the few files whose time is over.
    by_whom = used.limit(1).scalar_subquery()
    over = (
        select(File.tenant_id, File.id)
        .where(File.prune_at <= func.now(), by_whom.is_(None))
        .order_by(File.prune_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("over")
    )
    hidden = (
        update(File)
        .where(tuple_(File.tenant_id, File.id).in_(select(over)))
        .values(stored_at=None)
        .returning(File.tenant_id, File.id, File.path)
        .execution_options(synchronize_session=False)
    )
    return (await session.execute(hidden)).all()
