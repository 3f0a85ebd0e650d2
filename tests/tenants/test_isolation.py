"""Tenants are apart in the database itself: row-level security holds where a WHERE clause was forgotten."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

from app import db as module
from app.db import Database, new_id
from app.files.tables import File
from app.jobs.tables import Job
from app.migrate import upgrade
from app.settings import SettingsError
from app.tenants import minting
from tests import factories as make
from tests.callbacks import rows

SECRET = "a mecha of tenant A"
# What the Core writes for `table.tenant_id = ?`, however the table is called in the statement.
TENANT_FILTER = re.compile(r"\w+\.tenant_id = (%\(\w+\)s(?:::UUID)?|asked\.tenant_id)")


@pytest.fixture
async def stranger(db, api) -> Any:
    """Tenant A has something of everything; the API is called by tenant B. What A has, by the names of parameters."""
    ours, _ = await make.make_key(db)
    order = make.an_order(input={"prompt": SECRET, "duration": "5"}, end_user="user-1", metadata={"of": "A"})
    intent = await make.taken(db, ours, order)
    await make.submit(db, intent)
    await make.report(db, intent, make.success())
    endpoint = await rows.make_endpoint(db, ours, f"https://caller.example/{SECRET}")
    await rows.make_tests(db, endpoint)
    (delivery,) = await rows.deliveries(db, ours)
    file = await make_file(db, ours.tenant_id)
    wanted: dict[str, Any] = {"end_user": "user-1", "actions": ["read"], "models": None, "max_spend": None}
    token, _ = await db.run(partial(minting.create_token, caller=ours, ttl=timedelta(hours=1), **wanted))
    theirs, key = await make.make_key(db, scopes=["jobs:read", "jobs:write", "billing:read", "keys:write"])
    api.headers["Authorization"] = f"Bearer {key}"
    return {
        "job_id": str(intent.job.id),
        "key_id": str(ours.key_id),
        "endpoint_id": str(endpoint.id),
        "delivery_id": str(delivery.id),
        "file_id": str(file.id),
        "token_id": str(token.id),
        "tenant": ours.tenant_id,
        "other": theirs,
    }


async def make_file(db: Database, tenant_id: UUID) -> File:
    async def add(session: AsyncSession) -> File:
        stored = {"stored_at": func.now(), "prune_at": func.now(), "sha256": bytes(32), "content_type": "image/png"}
        file = File(tenant_id=tenant_id, id=new_id(), path="x", name=SECRET, size=1, **stored)
        session.add(file)
        await session.flush()
        return file

    return await db.run(add)


@contextmanager
def without_tenant_filters(db: Database) -> Iterator[list[str]]:
    """Every statement loses its `tenant_id = …`, as if whoever wrote it had forgotten."""
    changed: list[str] = []

    def forget(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> Any:
        reads = statement.lstrip().startswith("SELECT")
        forgetful = TENANT_FILTER.sub(r"(\1 IS NOT NULL)", statement) if reads else statement
        if forgetful != statement:
            changed.append(forgetful)
        return forgetful, parameters

    async def read_forgetfully(self: Database, readers: Any, statement: str, values: Any) -> Any:
        return await read_as_all(self, readers, *forget(None, None, statement, values))

    engine, read_as_all = db.engine.sync_engine, Database.read_as_all
    event.listen(engine, "before_cursor_execute", forget, retval=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "read_as_all", read_forgetfully)
        yield changed
    event.remove(engine, "before_cursor_execute", forget)


async def reads(api, names: dict[str, Any]) -> list[tuple[str, str]]:
    """
    What every GET of the API answers to *names*, by its path.

    Those of operators and the catalog are left out, and streams, which have no end.
    """
    document = (await api.get("/openapi.json")).json()
    answers = []
    for path, item in document["paths"].items():
        operation = item.get("get", {})
        if not operation.get("security") or "/admin/" in path or operation["tags"] == ["Models"]:
            continue
        if path.endswith("/events"):
            continue
        url = re.sub(r"\{(\w+)\}", lambda found: names[found[1]], path)
        # Also what the query can name: an id, an end user, a label.
        named = {one["name"]: names[one["name"]] for one in operation.get("parameters", []) if one["name"] in names}
        for query in ({}, named, {"end_user": "user-1", "metadata.of": "A"}):
            answer = await api.get(url, params={**named, **query})
            answers.append((path, f"{answer.status_code} {answer.headers} {answer.text}"))
    assert len(answers) >= 15
    return answers


def leaks(answers: list[tuple[str, str]], names: dict[str, Any]) -> set[str]:
    """The paths whose answers tell something of tenant A."""
    ids = [f'"id":"{names[name]}"' for name in ("key_id", "endpoint_id", "delivery_id", "file_id")]
    told = (SECRET, str(names["tenant"]), '"charged"', '"spent":"2.10"', '"kind":"hold"', *ids)
    return {path for path, answer in answers if any(word in answer for word in told)}


async def test_no_read_shows_what_is_another_tenants(api, stranger):
    answers = await reads(api, stranger)

    assert leaks(answers, stranger) == set()
    assert all(answer.startswith(("200", "404")) for _, answer in answers)


async def test_no_read_shows_it_even_where_every_tenant_filter_is_forgotten(api, stranger):
    with without_tenant_filters(api._transport.app.state.db) as changed:
        answers = await reads(api, stranger)

    assert len(changed) >= 5
    assert leaks(answers, stranger) == set()


async def test_no_stream_follows_another_tenants_job_even_where_every_tenant_filter_is_forgotten(api, stranger):
    with without_tenant_filters(api._transport.app.state.db) as changed:
        answer = await api.get(f"/v1/jobs/{stranger['job_id']}/events")

    assert changed
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_without_row_level_security_the_same_walk_would_show_it(api, stranger, monkeypatch):
    monkeypatch.setattr(Database, "reading_as", lambda self, _: self.session())
    monkeypatch.setattr(module, "BECOME_READER_OF_ALL", "SELECT %(readers)s;")

    with without_tenant_filters(api._transport.app.state.db):
        answers = await reads(api, stranger)

    everywhere = {"jobs", "jobs/{job_id}", "ledger", "keys", "endpoints", "deliveries/{delivery_id}", "files"}
    assert {f"/v1/{path}" for path in everywhere} <= leaks(answers, stranger)


async def test_no_write_changes_what_is_another_tenants(api, db, stranger):
    document = (await api.get("/openapi.json")).json()
    before = await all_of(db, stranger["tenant"])
    named: list[tuple[str, str, int]] = []
    wide: list[tuple[str, str, int]] = []
    for path, item in document["paths"].items():
        for method in {"post", "put", "patch", "delete"} & set(item):
            if not item[method].get("security") or "/admin/" in path:
                continue
            url = re.sub(r"\{(\w+)\}", lambda found: stranger[found[1]], path)
            body = example_of(document, item[method])
            if "dry_run" in body:
                body = {"dry_run": False}
            answer = await api.request(method, url, json=body)
            (wide if url == path else named).append((method, path, answer.status_code))

    # Whatever is named by its id isn't there; what names nothing found nothing of theirs.
    assert {status for *_, status in named} == {404}, named
    assert len(named) >= 11
    assert not [answer for answer in wide if answer[2] >= 500]
    assert await all_of(db, stranger["tenant"]) == before


def example_of(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    """A body that *operation* takes."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    shape = document["components"]["schemas"].get(content.get("schema", {}).get("$ref", "").rsplit("/", 1)[-1], {})
    return dict(next(iter(shape.get("examples", [{}]))))


async def all_of(db: Database, tenant_id: UUID) -> dict[str, list[str]]:
    """Every row that is the tenant's, of every table."""
    columns = text("SELECT table_name FROM information_schema.columns WHERE column_name = 'tenant_id'")
    async with db.session() as session:
        return {
            table: sorted(
                await session.scalars(text(f"SELECT t::text FROM {table} t WHERE tenant_id = :id"), {"id": tenant_id})
            )
            for table in await session.scalars(columns)
        }


async def test_every_table_of_tenants_is_protected(db):
    async with db.session() as session:
        found = await session.execute(
            text("""
                SELECT c.relname, c.relrowsecurity, p.policyname IS NOT NULL,
                       has_table_privilege('callsheet_reader', c.oid, 'INSERT, UPDATE, DELETE')
                FROM pg_class c
                JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
                LEFT JOIN pg_policies p ON p.tablename = c.relname AND p.roles = '{callsheet_reader}'
                WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace
            """)
        )
        tables = {name: tuple(state) for name, *state in found}

    assert len(tables) >= 10
    # A table of yours is named here? End its migration with migrations.rls.protect().
    assert {name for name, state in tables.items() if state != (True, True, False)} == set()


async def test_a_reader_sees_its_tenant_and_nothing_of_tables_without_one(db):
    ours, theirs = await make.make_tenant(db), await make.make_tenant(db)
    job = await make.accept(db, ours)

    async with db.reading_as(ours.tenant_id) as session:
        assert list(await session.scalars(select(Job.id))) == [job.id]
    async with db.reading_as(theirs.tenant_id) as session:
        assert list(await session.scalars(select(Job.id))) == []
    for table in ("tenants", "link_keys"):
        with pytest.raises(ProgrammingError, match="permission denied"):
            async with db.reading_as(ours.tenant_id) as session:
                await session.execute(text(f"SELECT * FROM {table}"))


async def test_a_reader_writes_nothing(db):
    caller = await make.make_tenant(db)

    with pytest.raises(ProgrammingError, match="permission denied"):
        async with db.reading_as(caller.tenant_id) as session:
            await minting.add_key(session, caller.tenant_id, name="x", scopes=[])


async def test_the_next_transaction_on_the_connection_is_nobody_again(database_url):
    db = Database(database_url, pool=1, pooler=True)
    caller = await make.make_tenant(db)
    await make.accept(db, caller)
    for _ in range(3):
        async with db.reading_as(UUID(int=0)) as session:
            assert list(await session.scalars(select(Job.id))) == []
        async with db.session() as session:
            now = text("SELECT current_user, current_setting('callsheet.tenant', true), count(*) FROM jobs")
            user, tenant, count = (await session.execute(now)).one()
            assert (user != "callsheet_reader", tenant or "", count) == (True, "", 1)
    await db.close()


async def test_a_reader_of_no_tenant_sees_nothing(db):
    await make.accept(db, await make.make_tenant(db))

    async with db.session() as session:
        await session.execute(text("SET LOCAL ROLE callsheet_reader"))
        assert list(await session.scalars(select(Job.id))) == []


@pytest.fixture
def owned(server: str) -> Iterator[tuple[str, str]]:
    """A database whose owner may not make roles, on a server where the reader isn't known; and its owner."""
    name = f"owner_{uuid4().hex[:12]}"
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {name} LOGIN NOSUPERUSER NOCREATEROLE PASSWORD '{name}'".encode())
        admin.execute(f"CREATE DATABASE {name} OWNER {name}".encode())
        url = make_url(server).set(username=name, password=name, database=name)
        yield url.render_as_string(hide_password=False), name
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
        admin.execute(f"DROP OWNED BY {name}".encode())
        admin.execute(f"DROP ROLE {name}".encode())


def test_who_may_not_make_the_reader_hears_what_to_run(owned, server, monkeypatch):
    url, name = owned
    reader = f"reader_{uuid4().hex[:12]}"
    monkeypatch.setattr("migrations.rls.READER", reader)

    with pytest.raises(SettingsError, match=f"CREATE ROLE {reader} NOLOGIN; GRANT {reader} TO"):
        upgrade(url)

    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as admin:
        # What the message says; then the same user gets on.
        admin.execute(f'CREATE ROLE {reader} NOLOGIN; GRANT {reader} TO "{name}"'.encode())
        upgrade(url)
        with psycopg.connect(url.replace("+psycopg", "")) as theirs:
            theirs.execute(f"SET LOCAL ROLE {reader}".encode())
            assert theirs.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
            theirs.execute(b"RESET ROLE")
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as theirs:
            theirs.execute(f"DROP OWNED BY {name} CASCADE".encode())
        admin.execute(f"DROP ROLE {reader}".encode())


def test_a_user_who_may_make_roles_makes_the_reader_and_may_become_it(owned, server, monkeypatch):
    url, name = owned
    reader = f"reader_{uuid4().hex[:12]}"
    monkeypatch.setattr("migrations.rls.READER", reader)
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute(f"ALTER ROLE {name} CREATEROLE".encode())

        upgrade(url)

        with psycopg.connect(url.replace("+psycopg", "")) as theirs:
            theirs.execute(f"SET LOCAL ROLE {reader}".encode())
            assert theirs.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as theirs:
            theirs.execute(f"DROP OWNED BY {name} CASCADE".encode())
        admin.execute(f"DROP ROLE {reader}".encode())


def test_databases_of_one_server_may_be_migrated_at_once(server):
    names = [f"one_{uuid4().hex[:12]}" for _ in range(3)]
    reader = f"reader_{uuid4().hex[:12]}"
    code = (
        "import sys; import migrations.rls; migrations.rls.READER = sys.argv[2];"
        "from app.migrate import upgrade; upgrade(sys.argv[1])"
    )
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as admin:
        for name in names:
            admin.execute(f"CREATE DATABASE {name}".encode())
        urls = [make_url(server).set(database=name).render_as_string(hide_password=False) for name in names]

        all_at_once = [subprocess.Popen([sys.executable, "-c", code, url, reader]) for url in urls]

        assert [one.wait(100) for one in all_at_once] == [0, 0, 0]
        for name in names:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
        admin.execute(f"DROP ROLE {reader}".encode())
