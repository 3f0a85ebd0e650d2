"""How Postgres finds what the hot statements ask for: by an index, however many jobs there are."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession

from app import leases, worker
from app.callbacks import claims, outcomes
from app.callbacks import queries as told
from app.callbacks.claims import Lane
from app.callbacks.tables import DeliveryStatus
from app.db import BECOME_READER, Database
from app.files import pruner
from app.files import queries as files
from app.incidents import queries as incidents
from app.incidents import watcher
from app.incidents.kinds import KINDS, Kind
from app.jobs import inbox, intake, news, queries, submits, taking, waiting
from app.jobs.fairness import Caps
from app.jobs.lanes import LOWEST
from app.jobs.news import BEGINNING, JobPlace, TenantPlace
from app.jobs.queries import Filter
from app.jobs.reconciler import AWAITED
from app.jobs.states import JobStatus
from app.jobs.tables import Job
from app.tenants import auth
from app.tenants.caller import Caller
from tests import factories as make
from tests.conftest import admin, copied, url_of

# One process makes the past, and looks at all of it.
pytestmark = pytest.mark.xdist_group("past")

ENDED = 20_000
WAITING = 400

FINISHED_JOBS = text("""
    INSERT INTO jobs (tenant_id, id, model, input, metadata, end_user, order_digest, status, output, attempts,
                      event_count, seconds, price_per_second, quoted, charged, charged_seconds, created_at,
                      submitted_at, finished_at)
    SELECT t.id, gen_random_uuid(), 'model-' || n % 7, '{}', jsonb_build_object('n', n::text),
           'user-' || n % 500, sha256('x'), 'succeeded', '{}', 1, 4, 5, 0.42, 2.10, 2.10, 5,
           now() - n * interval '1 second', now() - n * interval '1 second', now() - n * interval '1 second'
    FROM generate_series(1, :count) AS n
    JOIN (SELECT id, row_number() OVER () - 1 AS place FROM tenants) AS t
      ON t.place = n % (SELECT count(*) FROM tenants)
""")
WAITING_JOBS = text("""
    INSERT INTO jobs (tenant_id, id, model, input, order_digest, status, seconds, price_per_second, quoted,
                      submitted_at, due_at)
    SELECT (SELECT min(id::text)::uuid FROM tenants), gen_random_uuid(), 'model-1', '{}', sha256('x'),
           CASE WHEN n % 2 = 0 THEN 'queued' ELSE 'submitted' END, 5, 0.42, 2.10, now(), now() + n * interval '1 second'
    FROM generate_series(-10, :count) AS n
""")
ATTEMPTS = text("""
    INSERT INTO attempts (tenant_id, id, job_id, number, token_digest, status, fal_request_id)
    SELECT tenant_id, gen_random_uuid(), id, 1, sha256(id::text::bytea), 'submitted', id::text
    FROM jobs WHERE status <> 'queued'
""")

EVENTS = text("""
    INSERT INTO job_events (tenant_id, job_id, number, status, why)
    SELECT tenant_id, id, n, 'queued', 'x' FROM jobs, generate_series(1, 3) AS n WHERE finished_at IS NOT NULL
""")
KEYS = text("""
    INSERT INTO api_keys (tenant_id, id, name, prefix, digest, scopes)
    SELECT tenant_id, gen_random_uuid(), 'key', 'cs_', sha256((tenant_id::text || n)::bytea), '{}'
    FROM accounts, generate_series(1, 200) AS n
""")
OTHERS = text("INSERT INTO tenants (id, name) SELECT gen_random_uuid(), 'other-' || n FROM generate_series(1, 2000) n")

ENDPOINTS = text("""
    INSERT INTO callback_endpoints (tenant_id, id, url, events, secret)
    SELECT id, id, 'https://caller.example/', '{job.succeeded}', sha256('x') FROM tenants
""")
# One endpoint is down, and has a long line of what waits for its next try or is due.
DELIVERIES = text("""
    INSERT INTO callback_deliveries (tenant_id, id, endpoint_id, job_id, sequence, type, body, status, due_at,
                                     delivered_at)
    SELECT tenant_id, gen_random_uuid(), tenant_id, id, 5, 'job.succeeded', '{}',
           CASE WHEN waits THEN 'pending' ELSE 'delivered' END, CASE WHEN waits THEN now() END,
           CASE WHEN waits THEN NULL ELSE now() END
    FROM jobs, LATERAL (SELECT tenant_id = (SELECT min(id::text)::uuid FROM tenants) AS waits)
    WHERE status = 'succeeded'
""")
CALLBACK_ATTEMPTS = text("""
    INSERT INTO callback_attempts (tenant_id, id, delivery_id, status_code, body, duration_ms)
    SELECT tenant_id, gen_random_uuid(), id, 200, '', 5 FROM callback_deliveries
""")
OUTPUTS = text("""
    INSERT INTO outputs (tenant_id, job_id, number, source_url, vanishes_at, path, size, sha256, safe_at)
    SELECT tenant_id, id, 1, 'x', finished_at + interval '7 days', 'x', 1, sha256('x'), now()
    FROM jobs WHERE status = 'succeeded'
""")
INBOX = text("""
    INSERT INTO webhook_inbox (id, digest, verdict, headers, body, body_size, received_at)
    SELECT gen_random_uuid(), sha256(id::text::bytea), 'settled', '{}', 'x', 1, created_at FROM jobs
""")
INCIDENTS = text("""
    INSERT INTO incidents (id, kind, subject, closed_at, since, until, jobs, amount, detail, dismissed_at,
                           dismissed_by, dismissed_why)
    SELECT gen_random_uuid(), 'kind-' || n % 7, n, now(), now(), now(), 1, 1, '{}', d.at, d.said, d.said
    FROM generate_series(1, 5000) AS n
    LEFT JOIN (SELECT now() AS at, 'x' AS said) AS d ON n % 50 = 0
""")

FILES = text("""
    INSERT INTO files (tenant_id, id, path, size, content_type, sha256, stored_at, prune_at)
    SELECT tenant_id, gen_random_uuid(), 'x', 10, 'image/png', sha256('x'), now(), now() + n * interval '1 minute'
    FROM accounts, generate_series(-2, 500) AS n
""")
USES = text("""
    INSERT INTO file_uses (tenant_id, file_id, job_id)
    SELECT f.tenant_id, f.id, j.id
    FROM (SELECT *, row_number() OVER (PARTITION BY tenant_id) AS n FROM files) AS f
    JOIN (SELECT *, row_number() OVER (PARTITION BY tenant_id) AS n FROM jobs) AS j
      ON j.tenant_id = f.tenant_id AND j.n = f.n
""")


BROWSER_TOKENS = text("""
    INSERT INTO browser_tokens (tenant_id, id, api_key_id, digest, end_user, actions, expires_at)
    SELECT tenant_id, gen_random_uuid(), id, digest, 'user-1', '{read}', now() + interval '1 hour' FROM api_keys
""")


async def fill(url: str) -> UUID:
    """Give the database at *url* the past of a deployment; one tenant among some."""
    db = Database(url)
    callers = [await make.make_tenant(db) for _ in range(20)]
    async with db.session() as session:
        await session.execute(FINISHED_JOBS, {"count": ENDED})
        await session.execute(WAITING_JOBS, {"count": WAITING})
        for past in (
            ATTEMPTS,
            EVENTS,
            OTHERS,
            ENDPOINTS,
            DELIVERIES,
            CALLBACK_ATTEMPTS,
            KEYS,
            OUTPUTS,
            INBOX,
            INCIDENTS,
            FILES,
            USES,
            BROWSER_TOKENS,
        ):
            await session.execute(past)
    async with db.engine.connect() as connection:
        await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(text("ANALYZE"))
    await db.close()
    return callers[3].tenant_id


@pytest.fixture(scope="module")
def past(server: str, template: str) -> Iterator[tuple[str, UUID]]:
    """The name of a database with a past, to be copied, and a tenant in it."""
    name = f"{template}_with_a_past"
    admin(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    with ThreadPoolExecutor(1) as aside:
        yield name, aside.submit(asyncio.run, fill(url_of(server, name))).result()
    admin(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(server: str, past: tuple[str, UUID]) -> Iterator[str]:
    """A copy of that database for one test."""
    yield from copied(server, past[0])


@pytest.fixture
def history(past: tuple[str, UUID]) -> UUID:
    """A tenant in a deployment with a past."""
    return past[1]


@contextmanager
def heard(db: Database) -> Iterator[list[tuple[str, Any]]]:
    """The statements that reach Postgres meanwhile."""
    statements: list[tuple[str, Any]] = []

    def hear(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        statements.append((statement, parameters))

    event.listen(db.engine.sync_engine, "before_cursor_execute", hear)
    yield statements
    event.remove(db.engine.sync_engine, "before_cursor_execute", hear)


async def plans(db: Database, work: Callable[[AsyncSession], Awaitable[Any]], reader: UUID | None = None) -> list[str]:
    """How Postgres does each statement of *work*, under the row-level security of the tenant *reader* if given."""
    with heard(db) as statements:
        await db.run(work)
    async with db.engine.connect() as connection:
        if reader is not None:
            await connection.execute(BECOME_READER, {"tenant": str(reader)})
        found = []
        for statement, parameters in statements:
            rows = await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
            found.append("\n".join(row[0] for row in rows))
    return found


def reads_few(plan: str) -> bool:
    # Of fal accounts and chores there are a handful.
    return "Seq Scan" not in plan.replace("Seq Scan on fal_accounts", "").replace("Seq Scan on chores", "")


def caller(tenant: UUID) -> Caller:
    return Caller(tenant, tenant, frozenset())


async def reconcile(session: AsyncSession) -> Any:
    return await leases.claim(session, Job, Job.status.in_(AWAITED), owner="x", limit=32, lease_s=60)


CAPS = Caps({"default": 1000}, {"model-1": 1000}, 1000)


def looking_for(kind: Kind) -> Callable[[UUID], Callable[[AsyncSession], Awaitable[Any]]]:
    async def look(session: AsyncSession) -> Any:
        return await session.execute(text(kind.sql), {"dismissed": watcher.NEVER})

    return lambda _: look


OVER_JOBS = [kind for kind in KINDS if "chores" not in kind.sql]
PAGE: dict[str, Any] = {"limit": 21}
ALL = told.Filter()


async def what_it_waits_for(session: AsyncSession) -> Any:
    job = Job(tenant_id=LOWEST, id=LOWEST, model="model-1", status=JobStatus.QUEUED)
    return await waiting.reasons(session, [job], CAPS)


def listed(tenant: UUID, wanted: Filter, **place: Any) -> Callable[[AsyncSession], Awaitable[Any]]:
    return partial(queries.page, caller=caller(tenant), wanted=wanted, limit=21, **place)


async def deliver(session: AsyncSession, tenant: UUID) -> Any:
    return await claims.claim(session, {Lane(tenant, tenant): 8}, owner="x", limit=8, lease_s=60)


async def note_taken(session: AsyncSession, tenant: UUID) -> Any:
    told = json.dumps([{"tenant_id": str(tenant), "attempt_id": str(tenant), "request_id": "x"}])
    return await (await session.connection()).exec_driver_sql(
        submits.SUBMITTED, {"told": told, "sources": submits.SOURCES}
    )


async def note_delivered(session: AsyncSession, tenant: UUID) -> Any:
    told = json.dumps([{"tenant_id": str(tenant), "id": str(tenant), "attempt_id": str(tenant)}])
    return await (await session.connection()).exec_driver_sql(outcomes.DELIVERED, {"told": told})


async def look(session: AsyncSession) -> Any:
    return await (await session.connection()).exec_driver_sql(worker.LOOK)


HOT: dict[str, Callable[[UUID], Callable[[AsyncSession], Awaitable[Any]]]] = {
    "dispatch": lambda _: partial(taking.take, owner="x", limit=32, lease_s=60, caps=CAPS),
    "waits for": lambda _: what_it_waits_for,
    "expire": lambda _: partial(intake.expire, limit=100),
    "reconcile": lambda _: reconcile,
    "typical": lambda _: partial(queries.typical_s, model="model-3"),
    "get": lambda tenant: partial(queries.seen, caller=caller(tenant), job_id=tenant),
    "token": lambda tenant: partial(queries.attempt_by_token, tenant_id=tenant, digest=b"0" * 32),
    "key": lambda _: partial(auth.find, text="cs_x"),
    "news of jobs": lambda tenant: partial(news.of_jobs, places=[JobPlace(tenant, tenant, 1, None)] * 50),
    "news of tenants": lambda tenant: partial(news.of_tenants, places=[TenantPlace(tenant, BEGINNING)] * 3),
    "keys of streams": lambda tenant: partial(auth.still_good, keys=[(tenant, tenant)]),
    "tokens of streams": lambda tenant: partial(auth.tokens_still_good, tokens=[(tenant, tenant)]),
    "page": lambda tenant: listed(tenant, Filter()),
    "page by cursor": lambda tenant: listed(tenant, Filter(), cursor=tenant),
    "page of the oldest": lambda tenant: listed(tenant, Filter(), cursor=tenant, oldest_first=True),
    "page by status": lambda tenant: listed(tenant, Filter([JobStatus.FAILED])),
    "page by model": lambda tenant: listed(tenant, Filter(model="model-3")),
    "page by end user": lambda tenant: listed(tenant, Filter(end_user="user-3")),
    "page by metadata": lambda tenant: partial(
        queries.page_ids, caller=caller(tenant), wanted=Filter(metadata={"n": "3"}), limit=21
    ),
    "retried": lambda tenant: partial(intake.replay, caller=caller(tenant), order=make.an_order(retry_of=tenant)),
    "note what fal took": lambda tenant: partial(note_taken, tenant=tenant),
    "note deliveries": lambda tenant: partial(note_delivered, tenant=tenant),
    "look": lambda _: look,
    "deliver": lambda tenant: partial(deliver, tenant=tenant),
    "deliveries": lambda tenant: partial(told.page, tenant_id=tenant, chosen=ALL, **PAGE),
    "deliveries by cursor": lambda tenant: partial(told.page, tenant_id=tenant, chosen=ALL, before=tenant, **PAGE),
    "deliveries of a job": lambda tenant: partial(
        told.page, tenant_id=tenant, chosen=told.Filter(job_id=tenant), **PAGE
    ),
    "deliveries to one": lambda tenant: partial(told.page, tenant_id=tenant, chosen=told.Filter(tenant), **PAGE),
    "dead deliveries": lambda tenant: partial(
        told.page, tenant_id=tenant, chosen=told.Filter(status=DeliveryStatus.DEAD), **PAGE
    ),
    "attempts": lambda tenant: partial(told.attempts, tenant_id=tenant, delivery_id=tenant),
    "prune": lambda _: partial(inbox._delete, older_than=timedelta(days=30), limit=500),
    "incidents": lambda _: partial(incidents.page, limit=21),
    "incidents by kind": lambda _: partial(incidents.page, limit=21, kind="kind-3"),
    "incidents by cursor": lambda tenant: partial(incidents.page, limit=21, after=incidents.Place(False, tenant)),
    "dismissed": lambda _: partial(watcher._dismissed, kind=KINDS[0]),
    **{f"incidents: {kind.name}": looking_for(kind) for kind in OVER_JOBS},
    "files": lambda tenant: partial(files.page, tenant_id=tenant, **PAGE),
    "files by cursor": lambda tenant: partial(files.page, tenant_id=tenant, before=tenant, **PAGE),
    "files taken": lambda tenant: partial(files.taken, tenant_id=tenant),
    "file in use": lambda tenant: partial(files.in_use, tenant_id=tenant, file_id=tenant),
    "release files": lambda tenant: partial(files.release, tenant_id=tenant, job_id=tenant),
    "prune files": lambda _: partial(pruner.hide, limit=100),
    "browser token": lambda _: partial(auth.find, text="ct_x"),
}


@pytest.mark.parametrize("name", HOT)
async def test_a_hot_statement_reads_by_an_index(db, history, name):
    as_reader = name == "get" or (name.startswith("page") and name != "page by metadata")

    found = await plans(db, HOT[name](history), reader=history if as_reader else None)

    assert found
    for plan in found:
        assert reads_few(plan), plan


async def test_whose_turn_it_is_costs_one_look_into_the_index_for_each_endpoint(db, history):
    (plan,) = await plans(db, partial(claims.lanes, without=[Lane(history, history)], limit=8))

    # The few endpoints may be read one and all; what waits for them may not.
    assert "Seq Scan on callback_deliveries" not in plan
    assert "ix_callback_deliveries_due" in plan
