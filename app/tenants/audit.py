"""
The audit log: who changed what, written in the transaction of the change itself.

    audit(session, caller.actor, "key.revoke", key_id, tenant_id=caller.tenant_id)

Identifiers, names and amounts go in; keys, tokens, prompts and inputs never do.
"""

import getpass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

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
