"""Reads and the first write: the files of a job."""

import secrets
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app import clock
from app.media.files import files, vanishes_at
from app.media.tables import LinkKey, Output


def add(session: AsyncSession, tenant_id: UUID, job_id: UUID, output: dict[str, Any] | None) -> int:
    """Write down that the files of *output* are to be kept, in the transaction that ends their job; how many."""
    found = files(output)
    session.add_all(
        Output(
            tenant_id=tenant_id,
            job_id=job_id,
            number=number,
            source_url=file.url,
            content_type=file.content_type,
            vanishes_at=vanishes_at(file.url, clock.now()),
            due_at=func.now(),
        )
        for number, file in enumerate(found, start=1)
    )
    return len(found)


async def get(session: AsyncSession, tenant_id: UUID, job_id: UUID, number: int) -> Output | None:
    """One file of a job, or None."""
    return await session.get(Output, (tenant_id, job_id, number))


async def link_key(session: AsyncSession) -> bytes:
    """The key that signs links, made by whichever process asks first and shared by all."""
    made = insert(LinkKey).values(number=1, key=secrets.token_bytes(32))
    await session.execute(made.on_conflict_do_nothing())
    return (await session.scalars(select(LinkKey.key))).one()
