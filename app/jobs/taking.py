"""
Taking what is due to be sent: who is next, and the intent written down before a byte goes out.

Two round trips, or three where something is capped: what there is and who waits, all read at once, and then one
statement that writes the whole round: jobs, attempts, events, whose turn it is.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from app.db import new_id
from app.jobs import accounts, lanes
from app.jobs.fairness import Caps, Choice, Room, choose
from app.jobs.lanes import Due
from app.jobs.lifecycle import AttemptKey
from app.jobs.states import AttemptStatus, JobStatus
from app.jobs.tables import Attempt, Job
from app.jobs.tokens import new_token, token_digest
from app.lines import NOTHING_WRITTEN, Few

NO_CAPS: Final = Caps()
NOTHING_DUE: Final = Due([], None)
# A job that somebody has just canceled, or holds, is left out. Nothing is sent for a job without a row in `job`.
TAKE: Final = """
    WITH chosen AS MATERIALIZED (
        SELECT *
        FROM unnest(
            CAST(%(tenants)s AS uuid[]), CAST(%(jobs)s AS uuid[]), CAST(%(accounts)s AS text[]),
            CAST(%(attempts)s AS uuid[]), CAST(%(digests)s AS bytea[])
        ) AS chosen (tenant_id, id, fal_account, attempt_id, token_digest)
    ), picked AS MATERIALIZED (
        -- Found by their keys alone: by what is queued, all of that would be read.
        SELECT jobs.tenant_id, jobs.id, chosen.fal_account, chosen.attempt_id, chosen.token_digest,
            jobs.status = 'queued' AND jobs.due_at <= now()
                AND (jobs.deadline_at IS NULL OR jobs.deadline_at > now()) AS is_due
        FROM jobs JOIN chosen USING (tenant_id, id)
        FOR UPDATE OF jobs SKIP LOCKED
    ), job AS (
        UPDATE jobs
        SET status = 'submitting', waiting_for = 'fal', fal_account = picked.fal_account, attempts = attempts + 1,
            event_count = event_count + 1, due_at = now() + make_interval(secs => %(lease_s)s),
            lease_owner = %(owner)s, lease_token = lease_token + 1, tries = tries + 1
        FROM picked
        WHERE jobs.tenant_id = picked.tenant_id AND jobs.id = picked.id
            AND picked.is_due
        RETURNING jobs.tenant_id, jobs.id, model, priority, input, deadline_at, status, attempts, event_count,
            jobs.fal_account, lease_token, picked.attempt_id, picked.token_digest
    ), attempt AS (
        INSERT INTO attempts (tenant_id, id, job_id, number, token_digest, status, fal_account)
        SELECT tenant_id, attempt_id, id, attempts, token_digest, 'submitting', fal_account FROM job
        RETURNING id, created_at
    ), event AS (
        INSERT INTO job_events (tenant_id, job_id, number, status, why)
        SELECT tenant_id, id, event_count, status, 'attempt ' || attempts FROM job
    ), turn AS (
        UPDATE fal_accounts SET turn = CAST(%(turn)s AS uuid)
        WHERE name = %(first)s AND turn IS DISTINCT FROM CAST(%(turn)s AS uuid)
    )
    SELECT job.*, created_at
    FROM job JOIN attempt ON attempt.id = job.attempt_id
"""


class Intent(NamedTuple):
    """A job about to be sent, its attempt, and the token of the attempt's own webhook URL."""

    job: Job
    attempt: Attempt
    token: str
    probe: bool = False
    """It is let through to see whether a locked account is open again."""


async def take(
    ask: Few, *, owner: str, limit: int, lease_s: float, caps: Caps = NO_CAPS, keys: list[AttemptKey] | None = None
) -> list[Intent]:
    """
    Up to *limit* due jobs within *caps*, each with an attempt written down before anything is sent.

    Until fal's answer is recorded such a job is `submitting`; if the worker dies, the lease runs out and
    the reconciler finds it: then nobody knows whether fal has it. *keys* are filled before anything is written, since
    the answer to that may get lost; not all of them need come to be.
    """
    held, left, due = await _looked(ask, caps, limit)
    turn = held[0].turn
    chosen = choose(due.jobs, left, limit=limit, after=turn)
    # The next round begins after the tenant that was served last.
    last = chosen[-1].job.tenant_id if chosen else due.until
    if not chosen and last in {None, turn}:
        await ask(NOTHING_WRITTEN, commit=True)
        return []
    named = [AttemptKey(choice.job.tenant_id, new_id()) for choice in chosen]
    tokens = {key.id: new_token(*key) for key in named}
    if keys is not None:
        keys[:] = named
    values = {"first": held[0].name, "turn": last, "owner": owner, "lease_s": lease_s}
    (taken,) = await ask((TAKE, {**_rows(chosen, tokens), **values}), commit=not left.probed)
    if left.probed:
        probed = [row.fal_account for row in taken if row.fal_account in left.probed]
        await ask((accounts.PROBING, {"names": probed, "lease_s": lease_s}), commit=True)
    return _intents(taken, tokens, left)


async def _looked(ask: Few, caps: Caps, limit: int) -> tuple[Sequence[Any], Room, Due]:
    """The accounts, ours until the transaction ends; how much more may go to fal; and what is due, if anything may."""
    names = {"names": list(caps.accounts)}
    # From here to the commit no other worker chooses: what is counted stays true.
    asked = [(accounts.HOLD, names), lanes.at_fal_now(caps)]
    if not caps.any:
        # Most probably nothing is full, and who waits can be asked along.
        asked.append(lanes.waiting(accounts=caps.accounts, limit=limit))
    held, there, *waiting = await ask(*asked)
    if len(held) < len(caps.accounts):
        _, held, there, *waiting = await ask((accounts.ADD, names), *asked)
    left = lanes.room_left(caps, there)
    left.probed = frozenset(account.name for account in held if account.to_be_tried)
    for account in held:
        if account.locked:
            left.accounts[account.name] = min(left.accounts[account.name], 1 if account.to_be_tried else 0)
    if left.account() is None:
        return held, left, NOTHING_DUE
    full_tenants = [tenant for tenant, free in left.tenants.items() if free <= 0]
    full_models = [model for model, free in left.models.items() if free <= 0]
    if full_tenants or not waiting:
        (after_full,) = await ask(
            lanes.waiting(accounts=caps.accounts, limit=limit, full_tenants=full_tenants, full_models=full_models)
        )
        return held, left, lanes.due(after_full)
    return held, left, lanes.due(waiting[0])


def _rows(chosen: Sequence[Choice], tokens: Mapping[UUID, str]) -> dict[str, Any]:
    return {
        "tenants": [choice.job.tenant_id for choice in chosen],
        "jobs": [choice.job.id for choice in chosen],
        "accounts": [choice.account for choice in chosen],
        "attempts": list(tokens),
        "digests": [token_digest(token) for token in tokens.values()],
    }


def _intents(taken: Sequence[Any], tokens: Mapping[UUID, str], left: Room) -> list[Intent]:
    rows = {row.attempt_id: row for row in taken}
    intents = []
    for row in (rows[attempt_id] for attempt_id in tokens if attempt_id in rows):
        job = Job(
            tenant_id=row.tenant_id,
            id=row.id,
            status=JobStatus.SUBMITTING,
            model=row.model,
            priority=row.priority,
            input=row.input,
            deadline_at=row.deadline_at,
            attempts=row.attempts,
            fal_account=row.fal_account,
            lease_token=row.lease_token,
        )
        attempt = Attempt(
            tenant_id=row.tenant_id,
            id=row.attempt_id,
            job_id=row.id,
            number=row.attempts,
            status=AttemptStatus.SUBMITTING,
            fal_account=row.fal_account,
            created_at=row.created_at,
        )
        intents.append(Intent(job, attempt, tokens[row.attempt_id], probe=row.fal_account in left.probed))
    return intents
