"""
Orders, accepted in sets: the jobs, their holds and first events, and who will be told of them, all in one statement.

`ordering.place` gathers what arrives while a set is being committed; that is the next set. A set takes what is
plainly in order. What isn't, because the order came before or its account may not cover it, is left out, and decided
in a transaction of its own by whoever asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

from pydantic_core import to_json
from sqlalchemy import inspect

from app.billing.prices import Quote
from app.callbacks import outbox
from app.db import Database, new_id
from app.gather import Gatherer
from app.jobs.order import Order
from app.jobs.states import JobStatus
from app.jobs.tables import Job
from app.lines import Ask, bytea, uuids
from app.tenants.caller import Caller

# Accounts are locked in the order of their ids, before anything else, so that two sets never wait for each other.
# What a set may take of an account is counted order by order, as if all before it had been taken.
ACCEPT: Final = """
WITH wanted AS MATERIALIZED (
    SELECT *, sum(quoted) OVER (PARTITION BY tenant_id ORDER BY id) AS so_far
    FROM json_to_recordset(%(orders)s) AS wanted (
        tenant_id uuid, id uuid, entry_id uuid, api_key_id uuid, browser_token_id uuid, model text, input jsonb,
        labels jsonb, end_user text, priority bigint, idempotency_key text, order_digest bytea, retry_of uuid,
        callback_url text, seconds numeric, measured boolean, min_seconds numeric, step_seconds numeric,
        price_per_second numeric, base_amount numeric, base_seconds numeric, quoted numeric, run_after timestamptz,
        deadline_s double precision
    )
), account AS MATERIALIZED (
    SELECT tenant_id, available, credit_limit FROM accounts
    WHERE tenant_id = ANY (CAST(%(tenants)s AS uuid[])) ORDER BY tenant_id FOR NO KEY UPDATE
), job AS (
    INSERT INTO jobs (
        tenant_id, id, api_key_id, browser_token_id, model, input, metadata, end_user, priority, idempotency_key,
        order_digest, retry_of, callback_url, status, event_count, seconds, measured, min_seconds, step_seconds,
        price_per_second, base_amount, base_seconds, quoted, run_after, deadline_at, due_at
    )
    SELECT
        tenant_id, id, api_key_id, browser_token_id, model, input, labels, end_user, priority, idempotency_key,
        order_digest, retry_of, callback_url, 'queued', 1, seconds, measured, min_seconds, step_seconds,
        price_per_second, base_amount, base_seconds, quoted, run_after, now() + make_interval(secs => deadline_s),
        coalesce(run_after, now())
    FROM wanted JOIN account USING (tenant_id)
    WHERE credit_limit IS NULL OR available - so_far >= -credit_limit
    ORDER BY id
    ON CONFLICT DO NOTHING
    RETURNING tenant_id, id, quoted, callback_url, created_at, deadline_at
), endpoint AS (
    -- Who will be told at a callback_url of a job: the tenant's endpoint for those, made with the first of them.
    INSERT INTO callback_endpoints (tenant_id, id, events, secret)
    SELECT tenant_id, id, events, secret
    FROM json_to_recordset(%(endpoints)s) AS endpoint (tenant_id uuid, id uuid, events text[], secret bytea)
    WHERE tenant_id IN (SELECT tenant_id FROM job WHERE callback_url IS NOT NULL)
    ORDER BY tenant_id
    ON CONFLICT DO NOTHING
), event AS (
    INSERT INTO job_events (tenant_id, job_id, number, status, why)
    SELECT tenant_id, id, 1, 'queued', 'accepted' FROM job
), hold AS (
    INSERT INTO ledger_entries (tenant_id, id, kind, from_side, to_side, amount, job_id)
    SELECT tenant_id, entry_id, 'hold', 'available', 'held', job.quoted, id FROM job JOIN wanted USING (tenant_id, id)
), balance AS (
    UPDATE accounts SET available = available - amount, held = held + amount
    FROM (SELECT tenant_id, sum(quoted) AS amount FROM job GROUP BY tenant_id) AS moved
    WHERE accounts.tenant_id = moved.tenant_id AND accounts.tenant_id = ANY (CAST(%(tenants)s AS uuid[]))
)
SELECT id, created_at, deadline_at FROM job
"""
NEW: Final[Mapping[str, Any]] = {
    **dict.fromkeys(inspect(Job).column_attrs.keys()),
    "status": JobStatus.QUEUED,
    "attempts": 0,
    "event_count": 1,
}


@dataclass(frozen=True, slots=True)
class Accepting:
    """A member of a set: an order, whose it is, and its price."""

    caller: Caller
    order: Order
    quote: Quote

    def values(self) -> dict[str, Any]:
        """What is known of its job by now, named as the job's row names it."""
        caller, order, quote = self.caller, self.order, self.quote
        return {
            "tenant_id": caller.tenant_id,
            "id": new_id(),
            "api_key_id": caller.key_id,
            "browser_token_id": caller.token and caller.token.token_id,
            "model": order.model,
            "input": order.input,
            "labels": order.metadata,
            "end_user": order.end_user,
            "priority": order.priority,
            "idempotency_key": order.idempotency_key,
            "retry_of": order.retry_of,
            "callback_url": order.callback_url,
            "seconds": quote.seconds,
            "measured": quote.is_maximum,
            "min_seconds": quote.min_seconds,
            "step_seconds": quote.step_seconds,
            "price_per_second": quote.price.per_second,
            "base_amount": quote.price.base_amount,
            "base_seconds": quote.price.base_seconds,
            "quoted": quote.amount,
            "run_after": order.run_after,
        }


async def accept(ask: Ask, members: Sequence[Accepting]) -> list[Any]:
    """
    The job of each member, as its row has it, with its price held; None for one that this set leaves out.

    That is one whose idempotency key or origin has its job already, or whose account may not cover it together with
    those before it.
    """
    jobs = [member.values() for member in members]
    orders = [
        {
            **job,
            "entry_id": new_id(),
            "order_digest": bytea(member.order.digest),
            "deadline_s": member.order.deadline_s,
        }
        for job, member in zip(jobs, members, strict=True)
    ]
    called = {job["tenant_id"] for job in jobs if job["callback_url"] is not None}
    values = {
        "orders": to_json(orders).decode(),
        "endpoints": to_json([outbox.of_jobs(tenant_id) for tenant_id in called]).decode(),
        "tenants": uuids({job["tenant_id"] for job in jobs}),
    }
    rows = {row.id: row for row in await ask(ACCEPT, values)}
    return [
        SimpleNamespace(**{**NEW, **job, "created_at": row.created_at, "deadline_at": row.deadline_at})
        if (row := rows.get(job["id"])) is not None
        else None
        for job in jobs
    ]


def gatherer(db: Database) -> Gatherer[Accepting, Any]:
    """Where a process's orders come together."""

    async def write(members: Sequence[Accepting]) -> list[Any]:
        return await db.run_one(partial(accept, members=members))

    return Gatherer(write)
