"""How Postgres finds what the hot statements ask for: by an index, however many jobs there are."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession

from app import leases
from app.db import BECOME_READER, Database
from app.jobs import intake, queries
from app.jobs.reconciler import AWAITED
from app.jobs.states import JobStatus
from app.jobs.tables import Job
from app.tenants import auth
from app.tenants.caller import Caller
from tests import factories as make

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

KEYS = text("""
    INSERT INTO api_keys (tenant_id, id, name, prefix, digest, scopes)
    SELECT id, gen_random_uuid(), 'key', 'cs_', sha256((id::text || n)::bytea), '{}'
    FROM tenants, generate_series(1, 200) AS n
""")


BROWSER_TOKENS = text("""
    INSERT INTO browser_tokens (tenant_id, id, api_key_id, digest, end_user, actions, expires_at)
    SELECT tenant_id, gen_random_uuid(), id, digest, 'user-1', '{read}', now() + interval '1 hour' FROM api_keys
""")


@pytest.fixture
async def history(db: Database) -> UUID:
    """A tenant among some, in a deployment with a past."""
    callers = [await make.make_tenant(db) for _ in range(20)]
    async with db.session() as session:
        await session.execute(FINISHED_JOBS, {"count": ENDED})
        await session.execute(WAITING_JOBS, {"count": WAITING})
        await session.execute(ATTEMPTS)
        await session.execute(KEYS)
        await session.execute(BROWSER_TOKENS)
    async with db.engine.connect() as connection:
        await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(text("ANALYZE"))
    return callers[3].tenant_id


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
    return "Seq Scan" not in plan


def caller(tenant: UUID) -> Caller:
    return Caller(tenant, tenant, frozenset())


async def reconcile(session: AsyncSession) -> Any:
    return await leases.claim(session, Job, Job.status.in_(AWAITED), owner="x", limit=32, lease_s=60)


PAGE: dict[str, Any] = {"limit": 21}
HOT: dict[str, Callable[[UUID], Callable[[AsyncSession], Awaitable[Any]]]] = {
    "dispatch": lambda _: partial(intake.take, owner="x", limit=32, lease_s=60),
    "expire": lambda _: partial(intake.expire, limit=100),
    "reconcile": lambda _: reconcile,
    "typical": lambda _: partial(queries.typical_s, model="model-3"),
    "get": lambda tenant: partial(queries.seen, caller=caller(tenant), job_id=tenant),
    "token": lambda tenant: partial(queries.attempt_by_token, tenant_id=tenant, digest=b"0" * 32),
    "key": lambda _: partial(auth.find, text="cs_x"),
    "browser token": lambda _: partial(auth.find, text="ct_x"),
    "page": lambda tenant: partial(queries.page, caller=caller(tenant), **PAGE),
    "page by cursor": lambda tenant: partial(queries.page, caller=caller(tenant), before=tenant, **PAGE),
    "page by status": lambda tenant: partial(queries.page, caller=caller(tenant), statuses=[JobStatus.FAILED], **PAGE),
    "page by model": lambda tenant: partial(queries.page, caller=caller(tenant), model="model-3", **PAGE),
    "page by end user": lambda tenant: partial(queries.page, caller=caller(tenant), end_user="user-3", **PAGE),
    "page by metadata": lambda tenant: partial(queries.labeled, caller=caller(tenant), metadata={"n": "3"}, **PAGE),
}


@pytest.mark.parametrize("name", HOT)
async def test_a_hot_statement_reads_by_an_index(db, history, name):
    as_reader = name == "get" or (name.startswith("page") and name != "page by metadata")

    found = await plans(db, HOT[name](history), reader=history if as_reader else None)

    assert found
    for plan in found:
        assert reads_few(plan), plan
