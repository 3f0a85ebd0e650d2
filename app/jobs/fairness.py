"""Who goes next (pure): in turn between tenants, by priority within one, and never above a cap."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from app.settings import DEFAULT

UNLIMITED: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Caps:
    """How much may be at fal at once; None, or not named, = no cap. *tenant* is for each without one of its own."""

    accounts: Mapping[str, int | None] = field(default_factory=lambda: {DEFAULT: None})
    models: Mapping[str, int] = field(default_factory=dict)
    tenant: int | None = None

    @property
    def any(self) -> bool:
        """Whether there is any."""
        return bool(self.models) or self.tenant is not None or any(cap is not None for cap in self.accounts.values())


class Waiting(NamedTuple):
    """A job that is due."""

    tenant_id: UUID
    id: UUID
    model: str
    priority: int
    due_at: datetime


class AtFal(NamedTuple):
    """How many jobs of a tenant for a model an account has."""

    tenant_id: UUID
    model: str
    account: str
    jobs: int


@dataclass(slots=True)
class Room:
    """
    How many more may go. An account that isn't named takes none; a model that isn't named any number.

    A tenant that isn't named has *tenant* left, or no cap. *probed* accounts come first.
    """

    accounts: dict[str, int]
    models: dict[str, int] = field(default_factory=dict)
    tenants: dict[UUID, int] = field(default_factory=dict)
    tenant: int | None = None
    probed: frozenset[str] = frozenset()

    def of_tenant(self, tenant_id: UUID) -> int:
        """How many more of this tenant's may go."""
        return self.tenants.get(tenant_id, UNLIMITED if self.tenant is None else self.tenant)

    def account(self) -> str | None:
        """Where the next job goes, or None if no account takes one."""
        free = [name for name, left in self.accounts.items() if left > 0]
        return max(free, key=lambda name: (name in self.probed, self.accounts[name]), default=None)

    def take(self, tenant_id: UUID, model: str, account: str, jobs: int = 1) -> None:
        """So many jobs less may go."""
        self.tenants[tenant_id] = self.of_tenant(tenant_id) - jobs
        for caps, name in ((self.accounts, account), (self.models, model)):
            if name in caps:
                caps[name] -= jobs


class Choice(NamedTuple):
    """A job and the account it goes to."""

    job: Waiting
    account: str


def room(caps: Caps, own: Mapping[UUID, int], at_fal: Iterable[AtFal]) -> Room:
    """What *caps*, and the *own* ones of some tenants, leave beside what is *at_fal*."""
    left = Room(
        accounts={name: UNLIMITED if cap is None else cap for name, cap in caps.accounts.items()},
        models=dict(caps.models),
        tenants=dict(own),
        tenant=caps.tenant,
    )
    for row in at_fal:
        left.take(*row)
    return left


def choose(waiting: Iterable[Waiting], left: Room, *, limit: int, after: UUID | None) -> list[Choice]:
    """
    Up to *limit* of those *waiting*, one of each tenant in turn, beginning after the tenant *after*.

    As many as there is room for; what is *left* shrinks by them.
    """
    turns = deque(_queues(waiting, after))
    chosen: list[Choice] = []
    while turns and len(chosen) < limit and (account := left.account()) is not None:
        jobs = turns.popleft()
        job = _next(jobs, left)
        if job is not None:
            chosen.append(Choice(job, account))
            left.take(job.tenant_id, job.model, account)
            turns.append(jobs)
    return chosen


def _queues(waiting: Iterable[Waiting], after: UUID | None) -> list[deque[Waiting]]:
    """The jobs of each tenant in the order they are served, and the tenants in theirs."""
    queues: dict[UUID, deque[Waiting]] = {}
    for job in sorted(waiting, key=lambda job: (job.priority, job.due_at, job.id)):
        queues.setdefault(job.tenant_id, deque()).append(job)
    return [queues[tenant] for tenant in sorted(queues, key=lambda one: (after is not None and one <= after, one))]


def _next(jobs: deque[Waiting], left: Room) -> Waiting | None:
    """The next of a tenant's *jobs* that there is room for; a full model doesn't hold up its others."""
    while jobs:
        job = jobs.popleft()
        if left.of_tenant(job.tenant_id) <= 0:
            return None
        if left.models.get(job.model, 1) > 0:
            return job
    return None
