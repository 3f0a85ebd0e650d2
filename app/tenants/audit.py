"""
The audit log: who changed what, written in the transaction of the change itself.

    audit(session, caller.actor, "key.revoke", key_id, tenant_id=caller.tenant_id)

Identifiers, names and amounts go in; keys, tokens, prompts and inputs never do.
"""

import getpass
from datetime import timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app import clock
from app.db import Database, first_id
from app.pruning import delete_oldest, in_batches
from app.tenants.tables import AuditEntry


def audit(
    session: AsyncSession,
    actor: str,
    action: str,
    subject: object,
    *,
    tenant_id: UUID | None = None,
    **facts: str | int | float | bool | list[str] | None,
) -> None:
    """Note that *actor* did *action* (`noun.verb`) to *subject*, of *tenant_id* if it is a tenant's."""
    session.add(AuditEntry(tenant_id=tenant_id, actor=actor, action=action, subject=str(subject), facts=facts))


def operator() -> str:
    """Whoever runs this command, as the audit log names them."""
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):  # a container's user may have a number only
        return "cli:unknown"


async def prune(db: Database, older_than: timedelta, **bounds: int) -> int:
    """Delete entries written more than *older_than* ago, oldest first, within *bounds*; how many."""
    return await in_batches(db, delete_old, older_than=older_than, **bounds)


async def delete_old(session: AsyncSession, older_than: timedelta, limit: int) -> int:
    """One batch of that. Ids tell the time, so their own index finds the oldest."""
    old = AuditEntry.id < first_id(clock.now() - older_than)
    return await delete_oldest(session, AuditEntry, AuditEntry.id, old, limit=limit)
