"""
What may be true of jobs, money and fal's books at any moment: the promises as a model in plain Python.

Knows nothing of the product. It is told what was asked for and shown what there is, and objects.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

ENDINGS: Final = frozenset({"succeeded", "failed", "canceled", "expired"})
AT_FAL: Final = ENDINGS | {"submitted", "in_progress"}
LATER: Final[Mapping[str, frozenset[str]]] = {
    "queued": AT_FAL | {"submitting", "submit_unknown"},
    "submitting": AT_FAL | {"queued", "submit_unknown"},
    "submit_unknown": AT_FAL | {"queued", "submitting"},
    "submitted": ENDINGS | {"in_progress"},
    "in_progress": ENDINGS | {"submitted"},
    **dict.fromkeys(ENDINGS, frozenset()),
}
"""What a job may be after it was something, however many moves there were in between."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A job as it is now; *name* is the order's own."""

    name: str
    job_id: str
    status: str
    charged: Decimal | None
    events: Sequence[int]


@dataclass
class Model:
    """Orders of *price* each, and what was last seen of them."""

    price: Decimal
    ordered: dict[str, str | None] = field(default_factory=dict)
    """The job that each order was promised; None as long as nobody answered it."""
    canceled: set[str] = field(default_factory=set)
    """Names of the orders that somebody asked to cancel."""
    statuses: dict[str, str] = field(default_factory=dict)

    def answered(self, name: str, job_id: str) -> None:
        """An order was answered with *job_id*; every answer to it names the same job."""
        known = self.ordered.get(name)
        assert known in {None, job_id}, f"{name} is {known}, and now {job_id}"
        self.ordered[name] = job_id

    def check(self, jobs: Iterable[Seen], books: Iterable[Mapping[str, Any]], money: Sequence[Decimal]) -> None:
        """Object to whatever can't be: *books* are fal's, *money* is what is available, held and spent."""
        found = list(jobs)
        names = Counter(job.name for job in found)
        assert names == Counter(set(names)), f"an order became two jobs: {names}"
        promised = {name: job_id for name, job_id in self.ordered.items() if job_id is not None}
        assert promised.items() <= {(job.name, job.job_id) for job in found}, "a promised job is gone"
        paid: dict[str, Mapping[str, Any]] = {}
        for request in books:
            name = name_of(request["input"]["prompt"])
            assert name not in paid, f"fal has {name} twice"
            paid[name] = request
        assert paid.keys() <= names.keys(), "fal has what nobody ordered"
        for job in found:
            self._check(job, paid.get(job.name))
        self._check_money(found, money)

    def _check(self, job: Seen, request: Mapping[str, Any] | None) -> None:
        before = self.statuses.get(job.name, "queued")
        assert job.status == before or job.status in LATER[before], f"{job.name} went from {before} to {job.status}"
        self.statuses[job.name] = job.status
        assert list(job.events) == list(range(1, len(job.events) + 1)), f"{job.name} has the events {job.events}"
        owed = None if job.status not in ENDINGS else self.price if job.status == "succeeded" else Decimal(0)
        assert job.charged == owed, f"{job.name} is {job.status} and charged {job.charged}"
        outcome = request["outcome"] if request is not None else None
        if job.status == "succeeded":
            assert outcome == "ok", f"{job.name} succeeded; fal says {outcome}"
        elif job.status == "queued":
            assert request is None, f"{job.name} is in our queue, and at fal"
        elif job.status in ENDINGS and request is not None:
            assert outcome not in {None, "ok"}, f"{job.name} is {job.status}; fal says {outcome}"
        elif job.status == "canceled":
            assert job.name in self.canceled, f"{job.name} was canceled by nobody"

    def _check_money(self, found: Sequence[Seen], money: Sequence[Decimal]) -> None:
        held = self.price * sum(job.status not in ENDINGS for job in found)
        spent = self.price * sum(job.status == "succeeded" for job in found)
        assert tuple(money) == (-held - spent, held, spent), f"{money} is not what {len(found)} jobs cost"


def name_of(prompt: str) -> str:
    """The order that a prompt is from: its last word."""
    return prompt.rpartition(" ")[2]
