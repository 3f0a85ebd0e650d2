"""
The promises, checked on both sides: our database in plain SQL, and fal's books.

Knows nothing of the product but its tables. A payment is told to a job by the token in its webhook's address,
of which the attempt keeps a hash.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import namedtuple_row

Book = Sequence[Mapping[str, Any]]

JOBS: Final = """
    SELECT j.id, j.status, j.finished_at IS NOT NULL AS finished, j.quoted, coalesce(j.charged, 0) AS charged,
           j.status = 'succeeded' AND j.safe_at IS NULL AND j.safe_error IS NULL AS unkept,
           sum(e.amount) FILTER (WHERE e.to_side = 'held') AS held,
           coalesce(sum(e.amount) FILTER (WHERE e.from_side = 'held'), 0) AS resolved,
           coalesce(sum(e.amount) FILTER (WHERE e.to_side = 'spent'), 0) AS spent
    FROM jobs j LEFT JOIN ledger_entries e ON e.tenant_id = j.tenant_id AND e.job_id = j.id
    GROUP BY j.tenant_id, j.id
"""
ATTEMPTS: Final = "SELECT job_id, encode(token_digest, 'hex') AS token, status, fal_request_id FROM attempts"
BALANCES: Final = """
    SELECT coalesce(sum(abs(a.available - e.available) + abs(a.held - e.held) + abs(a.spent - e.spent)), 0)
    FROM accounts a CROSS JOIN LATERAL (
        SELECT coalesce(sum(CASE 'available' WHEN to_side THEN amount WHEN from_side THEN -amount END), 0) AS available,
               coalesce(sum(CASE 'held' WHEN to_side THEN amount WHEN from_side THEN -amount END), 0) AS held,
               coalesce(sum(CASE 'spent' WHEN to_side THEN amount WHEN from_side THEN -amount END), 0) AS spent
        FROM ledger_entries WHERE tenant_id = a.tenant_id
    ) e
"""


@dataclass(slots=True)
class Findings:
    """How often each promise is broken; `notes` says where."""

    lost: int = 0
    paid_twice: int = 0
    paid_without_job: int = 0
    unresolved_holds: int = 0
    cents_off: float = 0
    unfinished_unexplained: int = 0
    notes: list[str] = field(default_factory=list)
    jobs: dict[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, Any]:
        """The six numbers that must be 0."""
        return {name: value for name, value in asdict(self).items() if name not in {"notes", "jobs"}}

    @property
    def kept(self) -> bool:
        """Whether every promise is."""
        return not any(self.counts.values())


def check(url: str, books: Book, accepted: Collection[str], *, fal_tells: bool = False) -> Findings:
    """
    What is broken of the promises, given fal's *books* and the ids of the jobs that callers were promised.

    Where *fal_tells*, by its history, what became of a lost submit, nothing that it has may stay unknown.
    """
    with psycopg.connect(url.replace("+psycopg", ""), row_factory=namedtuple_row) as connection:
        # One moment for all three, while processes may still run.
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        jobs: list[Any] = connection.execute(JOBS).fetchall()
        attempts: list[Any] = connection.execute(ATTEMPTS).fetchall()
        (off,) = connection.execute(BALANCES).fetchone() or (Decimal(0),)
    found = Findings(jobs=dict(Counter(job.status for job in jobs)))
    _lost(found, {str(job.id) for job in jobs}, accepted)
    paid = _paid(found, attempts, books)
    cents = off * 100
    for job in jobs:
        cents += _money(found, job, paid.get(job.id, []))
        _explained(found, job, paid.get(job.id, []), fal_tells=fal_tells)
    found.cents_off = float(cents) if cents % 1 else int(cents)
    return found


def assert_promises(url: str, books: Book, accepted: Collection[str]) -> Findings:
    """Every promise is kept."""
    found = check(url, books, accepted)
    assert found.kept, (found.counts, found.notes)
    return found


def _lost(found: Findings, known: set[str], accepted: Iterable[str]) -> None:
    for job_id in accepted:
        if job_id not in known:
            found.lost += 1
            found.notes.append(f"{job_id} was accepted and is gone")


def _paid(found: Findings, attempts: Iterable[Any], books: Book) -> dict[UUID, list[Mapping[str, Any]]]:
    """What fal accepted, by job."""
    owners = {attempt.token: attempt for attempt in attempts}
    paid: dict[UUID, list[Mapping[str, Any]]] = {}
    for request in books:
        token = str(request["webhook_url"] or "").rpartition("/")[2]
        owner = owners.get(hashlib.sha256(token.encode()).hexdigest())
        if owner is None or owner.fal_request_id not in {None, request["request_id"]}:
            found.paid_without_job += 1
            found.notes.append(f"fal has {request['request_id']}, which is nobody's")
        else:
            paid.setdefault(owner.job_id, []).append(request)
    for job_id, requests in paid.items():
        if len(requests) > 1:
            found.paid_twice += 1
            found.notes.append(f"{job_id} was submitted {len(requests)} times")
    return paid


def _money(found: Findings, job: Any, paid: Sequence[Mapping[str, Any]]) -> Decimal:
    """The cents of *job* that are not where they should be."""
    held = job.held or Decimal(0)
    if job.finished and held != job.resolved:
        found.unresolved_holds += 1
        found.notes.append(f"{job.id} is {job.status} and holds {held - job.resolved}")
    off = abs(held - job.quoted) + abs(job.spent - job.charged)
    delivered = any(request["outcome"] == "ok" for request in paid)
    if job.finished and job.charged != (job.quoted if delivered else 0):
        off += abs(job.quoted - job.charged) or job.charged
        found.notes.append(f"{job.id} is {job.status}, charged {job.charged}; fal delivered: {delivered}")
    return Decimal(off * 100)


def _explained(found: Findings, job: Any, paid: Sequence[Mapping[str, Any]], *, fal_tells: bool) -> None:
    """
    At rest a job is over and its files are kept, or nobody can know: its submit got no answer, and fal tells nothing.

    That is so if fal never had it, or, where its history can't be asked, none of its webhooks reached us and no more
    will come.
    """
    if job.unkept:
        found.unfinished_unexplained += 1
        found.notes.append(f"{job.id} succeeded, and its files are neither safe nor given up")
    if job.finished:
        return
    silent = not paid if fal_tells else all(map(_untold, paid))
    if job.status != "submit_unknown" or not silent or job.held is None or job.resolved:
        found.unfinished_unexplained += 1
        found.notes.append(f"{job.id} is {job.status}; fal: {[request['state'] for request in paid]}")


def _untold(request: Mapping[str, Any]) -> bool:
    return request["told"] and not any(map(_heard, request["webhooks"]))


def _heard(webhook: Mapping[str, Any]) -> bool:
    return webhook["form"] == "ok" and webhook["code"] is not None and 200 <= webhook["code"] < 300
