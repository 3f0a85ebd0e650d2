"""callsheet jobs resolve: an operator's recorded decision on a submit whose answer got lost."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.cli.database import in_database
from app.cli.trouble import Trouble
from app.jobs import decisions
from app.jobs.decisions import Unresolvable
from app.jobs.tables import Job
from app.tenants.audit import audit, operator


def resolve(
    job_id: UUID, /, *, accepted: UUID | None = None, not_accepted: bool = False, reason: str | None = None
) -> None:
    """
    Say what became of a `submit_unknown` job, once you know it from fal's dashboard or support.

    Parameters
    ----------
    job_id
        The job's id.
    accepted
        fal has it, as this request: fal is asked about it, and its answer settles the job.
    not_accepted
        fal doesn't have it: it is sent again. If fal has it after all, it is paid for twice, though charged once.
    reason
        How you know; kept with the job. Must be given with --not-accepted.
    """
    if (accepted is not None) == not_accepted:
        raise Trouble("Say either --accepted REQUEST_ID or --not-accepted.")
    if not_accepted and not (reason or "").strip():
        raise Trouble("--reason: must say how you know that fal doesn't have it")

    async def decide(session: AsyncSession) -> None:
        job = await session.scalar(select(Job).where(Job.id == job_id))
        if job is None:
            raise Trouble(f"There is no job {job_id}.")
        try:
            if accepted is not None:
                await decisions.resolve_accepted(session, job, str(accepted), reason)
            else:
                await decisions.resolve_not_accepted(session, job, str(reason))
        except Unresolvable as error:
            raise Trouble(str(error)) from None
        verdict = f"accepted as {accepted}" if accepted is not None else "not accepted"
        audit(session, operator(), "job.resolve", job_id, tenant_id=job.tenant_id, verdict=verdict, reason=reason)

    in_database(decide, announced=True)
    print("Noted: fal is asked about it." if accepted else "Noted: it is sent again.")
