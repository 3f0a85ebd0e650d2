"""Reads of files, and the writes that go into somebody else's transaction: used by a job, no longer used."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.files.tables import File, FileUse
from app.tenants.caller import Caller


def visible(caller: Caller) -> list[ColumnElement[bool]]:
    """What a WHERE clause must hold so that it finds stored files of *caller*'s only, as its token narrows them."""
    mine = [File.tenant_id == caller.tenant_id, File.stored_at.is_not(None)]
    if caller.token is not None:
        mine.append(File.end_user == caller.token.end_user)
    return mine


async def seen(session: AsyncSession, caller: Caller, file_id: UUID) -> File | None:
    """The stored file, or None if it isn't there or not for *caller* to see."""
    return await session.scalar(select(File).where(*visible(caller), File.id == file_id))


async def get(session: AsyncSession, tenant_id: UUID, file_id: UUID) -> File | None:
    """The tenant's stored file, or None."""
    wanted = select(File).where(File.tenant_id == tenant_id, File.id == file_id, File.stored_at.is_not(None))
    return await session.scalar(wanted)


async def page(session: AsyncSession, caller: Caller, *, limit: int, before: UUID | None = None) -> Sequence[File]:
    """Up to *limit* of *caller*'s files, newest first, older than the file *before*."""
    wanted = visible(caller)
    if before is not None:
        wanted.append(File.id < before)
    return (await session.scalars(select(File).where(*wanted).order_by(File.id.desc()).limit(limit))).all()


async def taken(session: AsyncSession, tenant_id: UUID) -> tuple[int, int]:
    """How many files the tenant has and how many bytes they take, those just coming in counted as large as can be."""
    counted = select(func.count(), func.coalesce(func.sum(File.size), 0)).where(File.tenant_id == tenant_id)
    count, size = (await session.execute(counted)).one()
    return count, int(size)


async def known(session: AsyncSession, caller: Caller, wanted: Collection[UUID]) -> set[UUID]:
    """Those of *wanted* that *caller* may use."""
    return set(await session.scalars(select(File.id).where(*visible(caller), File.id.in_(wanted))))


async def keep(session: AsyncSession, caller: Caller, wanted: Collection[UUID], kept_for: timedelta) -> set[UUID]:
    """
    Those of *wanted* that *caller* may use, now kept for another while.

    They are locked until the transaction ends, so that none can be deleted between this look and the job's row.
    """
    if not wanted:
        return set()
    mine = (
        update(File)
        .where(*visible(caller), File.id.in_(wanted))
        .values(prune_at=func.now() + kept_for)
        .returning(File.id)
        .execution_options(synchronize_session=False)
    )
    return set(await session.scalars(mine))


def use(session: AsyncSession, tenant_id: UUID, job_id: UUID, file_ids: Collection[UUID]) -> None:
    """Write down that the job needs these files, in the transaction that accepts it."""
    session.add_all(FileUse(tenant_id=tenant_id, file_id=file_id, job_id=job_id) for file_id in sorted(file_ids))


async def release(session: AsyncSession, tenant_id: UUID, job_id: UUID) -> None:
    """The job has ended: it needs its files no more, in the transaction that ends it."""
    mine = delete(FileUse).where(FileUse.tenant_id == tenant_id, FileUse.job_id == job_id)
    await session.execute(mine.execution_options(synchronize_session=False))


async def in_use(session: AsyncSession, tenant_id: UUID, file_id: UUID) -> bool:
    """Whether an unfinished job needs the file."""
    use_ = select(FileUse.job_id).where(FileUse.tenant_id == tenant_id, FileUse.file_id == file_id).limit(1)
    return await session.scalar(use_) is not None
