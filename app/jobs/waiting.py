"""Why what is due waits in our queue: told when somebody asks, for nothing of it is written to the jobs."""

from collections.abc import Iterable
from typing import Any, Literal
from uuid import UUID

from app import clock
from app.db import Database
from app.jobs import lanes
from app.jobs.fairness import Caps, Room
from app.jobs.states import JobStatus

WaitsFor = Literal[
    "dispatch",
    "run_after",
    "tenant_limit",
    "model_limit",
    "account_limit",
    "account_locked",
    "fal_queue",
    "fal",
    "fal_answer",
    "video",
    "verdict",
]


async def reasons(db: Database, jobs: Iterable[Any], caps: Caps) -> dict[UUID, WaitsFor]:
    """
    What each of *jobs* that is in our queue waits for, by its id; asks the same little, however many they are.

    Rows with a job's columns will do. It sees every tenant's: of those that a job waits for, only that is told.
    """
    found = {job.id: _of_its_own(job) for job in jobs if job.status == JobStatus.QUEUED}
    due = [job for job in jobs if job.id in found and found[job.id] == "dispatch"]
    if due:
        left, locked = await lanes.room_and_locks(db, caps)
        found |= {job.id: _held_up_by(job, left, locked) for job in due}
    return found


def _of_its_own(job: Any) -> WaitsFor:
    if job.run_after is not None and job.run_after > clock.now():
        return "run_after"
    # After a refusal it is sent again at a time of its own.
    return "fal" if job.waiting_for == "fal" and job.due_at is not None and job.due_at > clock.now() else "dispatch"


def _held_up_by(job: Any, left: Room, locked: set[str]) -> WaitsFor:
    if left.accounts.keys() <= locked:
        return "account_locked"
    if all(free <= 0 for name, free in left.accounts.items() if name not in locked):
        return "account_limit"
    if left.of_tenant(job.tenant_id) <= 0:
        return "tenant_limit"
    if left.models.get(job.model, 1) <= 0:
        return "model_limit"
    return "dispatch"
