"""How Postgres finds what the hot statements ask for: by an index, however many jobs there are."""

import asyncio
import re
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

from app import clock, leases, lines, worker
from app.billing import queries as entries
from app.billing.prices import quote
from app.billing.tables import Kind as Kinds
from app.callbacks import claims, outbox, outcomes
from app.callbacks import pruner as callbacks
from app.callbacks import queries as told
from app.callbacks.claims import Lane
from app.callbacks.tables import DeliveryStatus
from app.db import BECOME_READER, BECOME_READER_OF_ALL, Database, ask_in, first_id
from app.files import pruner
from app.files import queries as files
from app.incidents import queries as incidents
from app.incidents import watcher
from app.incidents.kinds import KINDS, Kind
from app.jobs import (
    accepting,
    inbox,
    intake,
    keeping,
    lanes,
    news,
    overview,
    queries,
    settling,
    submits,
    taking,
    thinning,
    tokens,
)
from app.jobs.accepting import Accepting
from app.jobs.fairness import Caps
from app.jobs.news import BEGINNING, JobPlace, TenantPlace
from app.jobs.queries import Filter
from app.jobs.reconciler import AWAITED, anything_due
from app.jobs.states import JobStatus
from app.jobs.tables import Job
from app.media import rescuer
from app.media.download import Unfetched
from app.media.rescuer import Ended
from app.media.tables import Output
from app.tenants import audit, auth, known, minting
from app.tenants.caller import Caller
from tests import factories as make
from tests import history
from tests.conftest import admin
from tests.databases import few_in, url_of

JOBS = 20_000

KEYS = text("""
    INSERT INTO api_keys (tenant_id, id, name, prefix, digest, scopes)
    SELECT tenant_id, gen_random_uuid(), 'key', 'cs_', sha256((tenant_id::text || n)::bytea), '{}'
    FROM accounts, generate_series(1, 200) AS n
""")
OTHERS = text("INSERT INTO tenants (id, name) SELECT gen_random_uuid(), 'other-' || n FROM generate_series(1, 2000) n")

ACCOUNTS = text("INSERT INTO accounts (tenant_id) SELECT id FROM tenants ON CONFLICT DO NOTHING")
ENDPOINTS = text("""
    INSERT INTO callback_endpoints (tenant_id, id, url, events, secret, failing_since)
    SELECT id, gen_random_uuid(), 'https://caller.example/', '{job.succeeded}', sha256(name::bytea),
        CASE WHEN name LIKE '%7' THEN now() END
    FROM tenants
""")
# One endpoint is down, and has a long line of what waits for its next try or is due.
DOWN = text("""
    UPDATE callback_deliveries SET status = 'pending', due_at = now(), delivered_at = NULL, dead_why = NULL
    WHERE tenant_id = :tenant
""")
AUDIT = text("""
    INSERT INTO audit_log (id, actor, action, subject, facts, created_at)
    SELECT CAST(lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || '70008000'
        || lpad(to_hex(n), 12, '0') AS uuid), 'x', 'key.create', 'x', '{}', at
    FROM generate_series(1, 50000) AS n, LATERAL (SELECT now() - n * interval '20 minutes') AS t (at)
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


async def add_to(url: str) -> UUID:
    """Give the database at *url* the past of a deployment; one tenant among some."""
    tenant = history.tenant_id(2)
    db = Database(url)
    async with db.session() as session:
        await session.execute(DOWN, {"tenant": history.tenant_id(4)})
        for past in (OTHERS, ENDPOINTS, KEYS, INCIDENTS, FILES, USES, BROWSER_TOKENS, AUDIT, ACCOUNTS):
            await session.execute(past)
    async with db.engine.connect() as connection:
        await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(text("ANALYZE"))
    await db.close()
    return tenant


@pytest.fixture(scope="module")
def past(server: str, template: str) -> Iterator[tuple[str, UUID]]:
    """The address of a database with a past, in which nobody commits any more, and a tenant in it."""
    name = f"{template}_with_a_past"
    admin(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    url = url_of(server, name)
    with ThreadPoolExecutor(1) as aside:
        history.fill(url, JOBS)
        yield url, aside.submit(asyncio.run, add_to(url)).result()
    admin(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(past: tuple[str, UUID]) -> str:
    """That database."""
    return past[0]


@pytest.fixture
def tenant(past: tuple[str, UUID]) -> UUID:
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
    async with db.engine.connect() as connection, AsyncSession(connection) as session:
        with heard(db) as statements:
            await work(session)
            await session.flush()
        statements = [asked for asked in statements if not asked[0].startswith("SET ")]
        if reader is not None:
            await connection.execute(BECOME_READER, {"tenant": str(reader)})
        found = []
        for statement, parameters in statements:
            rows = await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
            found.append("\n".join(row[0] for row in rows))
        # Nothing is committed, so that the next one finds the past as it was.
        await session.rollback()
    return found


async def blocks(db: Database, work: Callable[[AsyncSession], Awaitable[Any]]) -> int:
    """How many blocks Postgres looks at for *work*, which is undone."""
    async with db.engine.connect() as connection:
        with heard(db) as statements:
            await work(AsyncSession(connection))
        await connection.rollback()
        found = 0
        for statement, parameters in list(statements):
            rows = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters)
            plan = rows.scalar_one()[0]["Plan"]
            found += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
            await connection.rollback()
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


def glancing_at(kind: Kind) -> Callable[[UUID], Callable[[AsyncSession], Awaitable[Any]]]:
    return lambda _: partial(ask_in, statement=watcher.glance(kind), values={"kind": kind.name})


OVER_JOBS = [kind for kind in KINDS if "chores" not in kind.sql]
PAGE: dict[str, Any] = {"limit": 21}
MONTH = timedelta(days=30)
LONG_AGO = clock.now() - MONTH
ALL = told.Filter()


async def what_it_waits_for(session: AsyncSession) -> Any:
    return await ask_in(session, lanes.ROOM_AND_LOCKS, {"capped": CAPS.any, "accounts": list(CAPS.accounts)})


def listed(tenant: UUID, wanted: Filter, **place: Any) -> Callable[[AsyncSession], Awaitable[Any]]:
    return partial(queries.page, caller=caller(tenant), wanted=wanted, limit=21, **place)


async def rescue(session: AsyncSession) -> Any:
    soonest = (Output.vanishes_at, Output.due_at)
    return await leases.claim(session, Output, owner="x", limit=8, lease_s=60, order_by=soonest)


async def deliver(session: AsyncSession, tenant: UUID) -> Any:
    return await claims.parcels(partial(ask_in, session), {Lane(tenant, tenant): 8}, owner="x", limit=8, lease_s=60)


async def note_taken(session: AsyncSession, tenant: UUID) -> Any:
    told = lines.told([{"tenant_id": tenant, "attempt_id": tenant, "request_id": "x"}])
    return await ask_in(session, submits.SUBMITTED, {**told, "sources": submits.SOURCES})


async def note_delivered(session: AsyncSession, tenant: UUID) -> Any:
    told = lines.told([{"tenant_id": tenant, "id": tenant, "attempt_id": tenant}])
    return await ask_in(session, outcomes.DELIVERED, told)


async def accept(session: AsyncSession, tenant: UUID) -> Any:
    order = make.an_order(callback_url="https://caller.example/")
    price = quote(make.CATALOG.known(order.model), order.input)
    return await accepting.accept(partial(ask_in, session), [Accepting(caller(tenant), order, price)])


async def find_keys(session: AsyncSession) -> Any:
    return await ask_in(session, auth.FIND_KEYS, {"digests": [b"0" * 32]})


async def note_use(session: AsyncSession, tenant: UUID) -> Any:
    return await ask_in(session, known.NOTE_USE, lines.told([{"tenant_id": tenant, "id": tenant}]))


async def show(session: AsyncSession, tenant: UUID) -> Any:
    await ask_in(session, BECOME_READER_OF_ALL, {"readers": f"{{{tenant}}}"})
    return await ask_in(session, queries.ROWS, {"tenants": [tenant], "ids": [tenant]})


async def settle_verdicts(session: AsyncSession) -> Any:
    return await settling.settle(partial(ask_in, session), [])


async def settle_and_tell_verdicts(session: AsyncSession) -> Any:
    return await settling.settle_and_tell(few_in(session), [])


async def tell(session: AsyncSession, tenant: UUID) -> Any:
    await queries.rows(partial(ask_in, session), [(tenant, tenant)])
    return await outbox.add(session, [outbox.News(tenant_id=tenant, listeners=[tenant], kind="x", body="{}")])


async def note_failed(session: AsyncSession, tenant: UUID) -> Any:
    told = lines.told([{"tenant_id": tenant, "job_id": tenant, "number": 1}])
    return await ask_in(session, rescuer.FAILED, told)


async def note_ended(session: AsyncSession, tenant: UUID) -> Any:
    file = Output(tenant_id=tenant, job_id=tenant, number=1, lease_token=1)
    return await keeping.note_ended(few_in(session), [Ended(file, None, Unfetched("gone", "It is gone."))])


async def look(session: AsyncSession) -> Any:
    return await (await session.connection()).exec_driver_sql(worker.LOOK)


HOT: dict[str, Callable[[UUID], Callable[[AsyncSession], Awaitable[Any]]]] = {
    "dispatch": lambda _: lambda session: taking.take(few_in(session), owner="x", limit=32, lease_s=60, caps=CAPS),
    "dispatch without caps": lambda _: lambda session: taking.take(few_in(session), owner="x", limit=32, lease_s=60),
    "waits for": lambda _: what_it_waits_for,
    "expire": lambda _: partial(intake.expire, limit=100),
    "reconcile": lambda _: reconcile,
    "anything to ask": lambda _: lambda session: anything_due(partial(ask_in, session)),
    "typical": lambda _: partial(queries.typical_s, model=make.O3),
    "get": lambda tenant: partial(queries.seen, caller=caller(tenant), job_id=tenant),
    "token": lambda tenant: partial(queries.attempt_by_token, token=tokens.new_token(tenant, tenant)),
    "key": lambda _: partial(auth.find, text="cs_x"),
    "keys": lambda _: find_keys,
    "note the use of keys": lambda tenant: partial(note_use, tenant=tenant),
    "news of jobs": lambda tenant: (
        lambda session: news.of_jobs(partial(ask_in, session), [JobPlace(tenant, tenant, 1, None)] * 50)
    ),
    "news of tenants": lambda tenant: (
        lambda session: news.of_tenants(partial(ask_in, session), [TenantPlace(tenant, BEGINNING)] * 3)
    ),
    "keys of streams": lambda tenant: partial(auth.still_good, keys=[(tenant, tenant)]),
    "tokens of streams": lambda tenant: partial(auth.tokens_still_good, tokens=[(tenant, tenant)]),
    "overview": lambda tenant: partial(overview.read, tenant_id=tenant),
    "page": lambda tenant: listed(tenant, Filter()),
    "page by cursor": lambda tenant: listed(tenant, Filter(), cursor=tenant),
    "page of the oldest": lambda tenant: listed(tenant, Filter(), cursor=tenant, oldest_first=True),
    "page by status": lambda tenant: listed(tenant, Filter([JobStatus.FAILED])),
    "page by model": lambda tenant: listed(tenant, Filter(model=make.O3)),
    "page by end user": lambda tenant: listed(tenant, Filter(end_user="user-4")),
    "page by metadata": lambda tenant: partial(
        queries.page_ids, caller=caller(tenant), wanted=Filter(metadata={"shot": "3"}), limit=21
    ),
    "page before a time": lambda tenant: listed(tenant, Filter(created_before=LONG_AGO)),
    "page after a time": lambda tenant: listed(tenant, Filter(created_after=LONG_AGO), oldest_first=True),
    "page by status and a time": lambda tenant: listed(tenant, Filter([JobStatus.FAILED], created_before=LONG_AGO)),
    "page by end user and cursor": lambda tenant: listed(tenant, Filter(end_user="user-4"), cursor=tenant),
    "page by model and cursor": lambda tenant: listed(tenant, Filter(model=make.O3), cursor=first_id(LONG_AGO)),
    "ledger": lambda tenant: partial(entries.page, tenant_id=tenant, **PAGE),
    "ledger by cursor": lambda tenant: partial(entries.page, tenant_id=tenant, before=first_id(LONG_AGO), **PAGE),
    "ledger of a job": lambda tenant: partial(entries.page, tenant_id=tenant, job_id=tenant, **PAGE),
    **{
        f"ledger of {kind}": lambda tenant, kind=kind: partial(entries.page, tenant_id=tenant, kind=kind, **PAGE)  # type: ignore[misc]
        for kind in Kinds
    },
    "rescue": lambda _: rescue,
    "note ended files": lambda tenant: partial(note_ended, tenant=tenant),
    "note failed files": lambda tenant: partial(note_failed, tenant=tenant),
    "retried": lambda tenant: partial(intake.replay, caller=caller(tenant), order=make.an_order(retry_of=tenant)),
    "note what fal took": lambda tenant: partial(note_taken, tenant=tenant),
    "note deliveries": lambda tenant: partial(note_delivered, tenant=tenant),
    "look": lambda _: look,
    "accept": lambda tenant: partial(accept, tenant=tenant),
    "show": lambda tenant: partial(show, tenant=tenant),
    "settle verdicts": lambda _: settle_verdicts,
    "settle verdicts that are told": lambda _: settle_and_tell_verdicts,
    "tell": lambda tenant: partial(tell, tenant=tenant),
    "deliver": lambda tenant: partial(deliver, tenant=tenant),
    "deliveries": lambda tenant: partial(told.page, tenant_id=tenant, chosen=ALL, **PAGE),
    "deliveries by cursor": lambda tenant: partial(told.page, tenant_id=tenant, chosen=ALL, before=tenant, **PAGE),
    "deliveries of a job": lambda tenant: partial(
        told.page, tenant_id=tenant, chosen=told.Filter(job_id=tenant), **PAGE
    ),
    "deliveries to one": lambda tenant: partial(told.page, tenant_id=tenant, chosen=told.Filter(tenant), **PAGE),
    "deliveries before a time": lambda tenant: partial(
        told.page, tenant_id=tenant, chosen=told.Filter(created_before=LONG_AGO), **PAGE
    ),
    "dead deliveries": lambda tenant: partial(
        told.page, tenant_id=tenant, chosen=told.Filter(status=DeliveryStatus.DEAD), **PAGE
    ),
    "attempts": lambda tenant: partial(told.attempts, tenant_id=tenant, delivery_id=tenant),
    "prune the inbox": lambda _: partial(inbox.delete_old, older_than=MONTH, limit=50),
    "prune callbacks": lambda _: partial(callbacks.delete_old, older_than=MONTH, limit=50),
    "prune the audit log": lambda _: partial(audit.delete_old, older_than=MONTH, limit=50),
    "prune tokens": lambda _: partial(known.delete_expired, limit=50),
    "thin jobs": lambda _: partial(thinning.thin_old, older_than=MONTH, limit=50),
    "is a promise broken": lambda _: incidents.promise_is_broken,
    "incidents": lambda _: partial(incidents.page, limit=21),
    "incidents by kind": lambda _: partial(incidents.page, limit=21, kind="kind-3"),
    "incidents by cursor": lambda tenant: partial(incidents.page, limit=21, after=incidents.Place(False, tenant)),
    "dismissed": lambda _: partial(watcher._dismissed, kind=KINDS[0]),
    "incidents that are open": lambda _: lambda session: ask_in(session, watcher.OPEN, {"kind": "kind-3"}),
    **{f"incidents: {kind.name}": looking_for(kind) for kind in OVER_JOBS},
    **{f"incidents at a glance: {kind.name}": glancing_at(kind) for kind in OVER_JOBS},
    "files": lambda tenant: partial(files.page, caller=caller(tenant), **PAGE),
    "files by cursor": lambda tenant: partial(files.page, caller=caller(tenant), before=tenant, **PAGE),
    "files named": lambda tenant: partial(files.known, caller=caller(tenant), wanted=[tenant]),
    "files taken": lambda tenant: partial(files.taken, tenant_id=tenant),
    "file in use": lambda tenant: partial(files.in_use, tenant_id=tenant, file_id=tenant),
    "release files": lambda tenant: partial(files.release, tenant_id=tenant, job_id=tenant),
    "prune files": lambda _: partial(pruner.hide, limit=100),
    "tokens": lambda tenant: partial(minting.live_tokens, tenant_id=tenant, **PAGE),
    "tokens by cursor": lambda tenant: partial(minting.live_tokens, tenant_id=tenant, before=tenant, **PAGE),
    "browser token": lambda _: partial(auth.find, text="ct_x"),
}


@pytest.mark.parametrize("name", HOT)
async def test_a_hot_statement_reads_by_an_index(db, tenant, name):
    as_reader = name in {"get", "overview"} or (name.startswith("page") and name != "page by metadata")

    found = await plans(db, HOT[name](tenant), reader=tenant if as_reader else None)

    assert found
    for plan in found:
        assert reads_few(plan), plan


PAGES = [name for name in HOT if name.startswith(("overview", "page", "ledger", "deliveries", "dead", "news"))]
ENOUGH = 400
"""Blocks for a page of 21; those of the tenant's 2,600 jobs would be as many."""


@pytest.mark.parametrize("name", PAGES)
async def test_a_page_reads_little_more_than_it_shows(db, tenant, name):
    assert await blocks(db, HOT[name](tenant)) < ENOUGH


async def test_whose_turn_it_is_costs_one_look_into_the_index_for_each_endpoint(db, tenant):
    async def lanes(session: AsyncSession) -> Any:
        return await claims.lanes(partial(ask_in, session), without=[Lane(tenant, tenant)], limit=8)

    (plan,) = await plans(db, lanes)

    # The few endpoints may be read one and all; what waits for them may not.
    assert "Seq Scan on callback_deliveries" not in plan
    assert "ix_callback_deliveries_due" in plan


@pytest.mark.parametrize(("claim", "key"), [(reconcile, "pk_jobs"), (rescue, "pk_outputs")])
async def test_who_takes_what_is_due_finds_what_was_picked_by_its_key(db, tenant, claim, key):
    (plan,) = await plans(db, claim)

    # By another index all that is due would be read once more, however much that is.
    assert key in plan


@pytest.mark.parametrize(
    ("note", "key", "due"),
    [
        (note_ended, "pk_outputs", "ix_outputs_due"),
        (note_failed, "pk_outputs", "ix_outputs_due"),
        (note_delivered, "pk_callback_deliveries", "ix_callback_deliveries_due"),
    ],
)
async def test_who_notes_what_became_of_something_finds_it_by_its_key(db, tenant, note, key, due):
    found = "\n".join(await plans(db, partial(note, tenant=tenant)))

    assert key in found
    assert due not in found


@pytest.mark.parametrize(
    "note",
    [
        note_taken,
        note_ended,
        note_failed,
        note_delivered,
        lambda session, **_: settle_verdicts(session),
        lambda session, **_: settle_and_tell_verdicts(session),
        tell,
    ],
)
async def test_of_a_set_postgres_expects_few_rows(db, tenant, note):
    async with db.engine.connect() as connection:
        with heard(db) as statements:
            await note(AsyncSession(connection), tenant=tenant)
        ((statement, parameters),) = [asked for asked in statements if "%(many)s" in asked[0]]
        plan = "\n".join((await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)).scalars())

    # Were it a hundred, all of a table of some thousand would be read to find them.
    assert re.search(r"Limit .* rows=10 .*\n(.*\n)*? *->  Function Scan on json_to_recordset", plan)


async def test_a_round_of_dispatch_finds_what_it_chose_by_its_key(db, tenant):
    one = {"tenants": [tenant], "jobs": [tenant], "accounts": ["x"], "attempts": [tenant], "digests": [b"x"]}
    round_ = {"turn": tenant, "first": "x", "owner": "x", "lease_s": 60}

    (plan,) = await plans(db, partial(ask_in, statement=taking.TAKE, values={**one, **round_}))

    assert "pk_jobs" in plan
    assert "ix_jobs_lanes" not in plan
