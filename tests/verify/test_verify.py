"""Every check finds what it is for, and nothing in a healthy database."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Final
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.verify.check import EXAMPLES
from app.verify.verifier import CHECKS, Report, snapshot, verify
from tests import factories as make
from tests import history

JOBS: Final = 200
UNTIL: Final = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
# One of each kind, as `history` numbers them.
QUEUED, SUBMITTING, UNKNOWN, SUBMITTED, RUNNING, EXPIRED, CANCELED, REFUSED, FAILED = range(1, 10)
AGAIN, FOUND, MEASURED, DONE = 12, 14, 15, 18

# What Postgres would refuse is what is to be found: without a constraint or a unique index, anything can be written.
UNGUARD: Final = """
DO $$
DECLARE found record;
BEGIN
    FOR found IN SELECT conrelid::regclass AS place, conname FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'f', 'u') ORDER BY contype <> 'f'
    LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', found.place, found.conname);
    END LOOP;
    FOR found IN SELECT indexrelid::regclass AS place FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
        WHERE c.relnamespace = 'public'::regnamespace AND indisunique AND NOT indisprimary
    LOOP
        EXECUTE format('DROP INDEX %s', found.place);
    END LOOP;
END $$
"""


def job(n: int) -> str:
    """The id of job number *n*, which tells when it came."""
    ago = timedelta(seconds=n) if n <= RUNNING else (JOBS - n) * timedelta(days=history.DAYS) / JOBS
    return str(UUID(f"{round((UNTIL - ago).timestamp() * 1000):012x}70028000{n:012x}"))


def tenant_of(n: int) -> str:
    return str(history.tenant_of(n))


def entry(n: int, values: str, *, like: str = "hold") -> str:
    columns = "kind, from_side, to_side, amount, job_id, hold_amount, charge_amount"
    return (
        f"INSERT INTO ledger_entries (tenant_id, id, {columns}) SELECT tenant_id, gen_random_uuid(), {values}"
        f" FROM ledger_entries WHERE job_id = '{job(n)}' AND kind = '{like}'"
    )


def update(table: str, n: int, change: str, where: str = "true") -> str:
    column = "id" if table == "jobs" else "tenant_id" if table == "accounts" else "job_id"
    return (
        f"UPDATE {table} SET {change} WHERE {column} = '{tenant_of(n) if table == 'accounts' else job(n)}' AND {where}"
    )


def delete(table: str, n: int, where: str = "true") -> str:
    return f"DELETE FROM {table} WHERE {'id' if table == 'jobs' else 'job_id'} = '{job(n)}' AND {where}"


SAME: Final = "kind, from_side, to_side, amount, job_id, hold_amount, charge_amount"
RELEASE: Final = "'release', 'held', 'available', amount, job_id, amount, CAST(NULL AS numeric)"
CHARGE: Final = "'charge', 'held', 'spent', amount, job_id, amount, CAST(NULL AS numeric)"
LATE_EVENT: Final = (
    "INSERT INTO job_events (tenant_id, job_id, number, status, why)"
    f" SELECT tenant_id, job_id, 6, 'in_progress', '' FROM job_events WHERE job_id = '{job(DONE)}' AND number = 1"
)
ATTEMPT_IN_QUEUE: Final = (
    "INSERT INTO attempts (tenant_id, id, job_id, number, token_digest, status)"
    f" SELECT tenant_id, gen_random_uuid(), id, 1, sha256('x'), 'unknown' FROM jobs WHERE id = '{job(QUEUED)}'"
)


def told(n: int, *, kind: str = "job.succeeded", sequence: int = 5, status: str = "pending") -> str:
    """A delivery about a job, to an endpoint of its own."""
    delivered = "now()" if status == "delivered" else "NULL"
    return (
        "WITH mine AS (SELECT tenant_id, id FROM jobs WHERE id = '" + job(n) + "'), made AS ("
        "INSERT INTO callback_endpoints (tenant_id, id, url, events, secret)"
        " SELECT tenant_id, gen_random_uuid(), 'https://caller.example/', '{}', sha256('x') FROM mine"
        " RETURNING tenant_id, id)"
        " INSERT INTO callback_deliveries"
        " (tenant_id, id, endpoint_id, job_id, sequence, type, body, status, due_at, delivered_at)"
        f" SELECT mine.tenant_id, gen_random_uuid(), made.id, mine.id, {sequence}, '{kind}', '', '{status}',"
        f" {'NULL' if status == 'delivered' else 'now()'}, {delivered} FROM mine, made"
    )


ADDRESSED: Final = "callback_url = 'https://caller.example/'"

PLANTED: Final = [
    ("fal_account_is_its_attempts", DONE, update("attempts", DONE, "fal_account = 'other'")),
    ("account_is_its_entries", DONE, update("accounts", DONE, "available = available + 0.000001")),
    ("account_is_its_entries", DONE, update("accounts", DONE, "held = held + 0.000001")),
    ("account_is_its_entries", DONE, update("accounts", DONE, "spent = spent - 0.000001")),
    ("account_is_its_entries", DONE, f"DELETE FROM accounts WHERE tenant_id = '{tenant_of(DONE)}'"),
    ("account_holds_for_its_jobs", QUEUED, update("accounts", QUEUED, "held = held + 0.000001")),
    ("account_holds_for_its_jobs", SUBMITTED, delete("ledger_entries", SUBMITTED)),
    ("entry_has_its_job", DONE, delete("jobs", DONE)),
    ("one_hold", DONE, delete("ledger_entries", DONE, "kind = 'hold'")),
    ("one_hold", QUEUED, entry(QUEUED, SAME)),
    ("hold_is_quote", QUEUED, update("ledger_entries", QUEUED, "amount = amount - 0.01")),
    ("one_resolution", DONE, delete("ledger_entries", DONE, "kind = 'charge'")),
    ("one_resolution", DONE, entry(DONE, SAME, like="charge")),
    ("one_resolution", FAILED, delete("ledger_entries", FAILED, "kind = 'release'")),
    ("one_resolution", FAILED, entry(FAILED, SAME, like="release")),
    ("one_resolution", DONE, entry(DONE, RELEASE)),
    ("unfinished_keeps_its_hold", SUBMITTED, entry(SUBMITTED, RELEASE)),
    ("unfinished_keeps_its_hold", UNKNOWN, entry(UNKNOWN, CHARGE)),
    ("nothing_is_left_of_a_hold", MEASURED, delete("ledger_entries", MEASURED, "kind = 'release'")),
    ("nothing_is_left_of_a_hold", MEASURED, entry(MEASURED, SAME, like="release")),
    ("nothing_is_left_of_a_hold", FAILED, update("ledger_entries", FAILED, "amount = 0.01", "kind = 'release'")),
    ("charge_is_in_ledger", DONE, update("jobs", DONE, "charged = charged - 0.42, charged_seconds = seconds - 1")),
    ("charge_is_in_ledger", DONE, update("ledger_entries", DONE, "amount = amount - 0.01", "kind = 'charge'")),
    ("charge_is_in_ledger", SUBMITTED, update("jobs", SUBMITTED, "charged = 0")),
    ("only_success_is_charged", EXPIRED, update("ledger_entries", EXPIRED, "kind = 'charge'", "kind = 'release'")),
    ("only_success_is_charged", DONE, update("ledger_entries", DONE, "kind = 'release'", "kind = 'charge'")),
    ("charge_is_frozen_price", DONE, update("jobs", DONE, "price_per_second = 0.43")),
    ("charge_is_frozen_price", DONE, update("jobs", DONE, "charged_seconds = charged_seconds - 0.001")),
    ("charge_is_frozen_price", DONE, update("jobs", DONE, "charged_seconds = NULL")),
    ("charge_is_frozen_price", DONE, update("jobs", DONE, "base_amount = 0.000001")),
    ("quote_is_frozen_price", QUEUED, update("jobs", QUEUED, "base_seconds = 1")),
    ("charge_within_quote", DONE, update("jobs", DONE, "charged = quoted + 0.000001")),
    ("charge_within_quote", DONE, update("ledger_entries", DONE, "amount = amount + 0.01", "kind = 'charge'")),
    ("event_has_its_job", FAILED, delete("jobs", FAILED)),
    ("events_are_numbered", DONE, delete("job_events", DONE, "number = 3")),
    ("events_are_numbered", DONE, delete("job_events", DONE)),
    ("events_are_numbered", DONE, update("job_events", DONE, "number = 9", "number = 5")),
    ("events_are_numbered", DONE, update("jobs", DONE, "event_count = 6")),
    ("life_begins_accepted", QUEUED, update("job_events", QUEUED, "status = 'submitting'")),
    ("last_event_is_status", DONE, update("job_events", DONE, "status = 'failed'", "number = 5")),
    ("last_event_is_status", SUBMITTED, update("jobs", SUBMITTED, "status = 'in_progress', started_at = now()")),
    ("only_allowed_moves", DONE, update("job_events", DONE, "status = 'queued'", "number = 4")),
    ("only_allowed_moves", AGAIN, update("job_events", AGAIN, "status = 'submit_unknown'", "number = 3")),
    ("one_ending", DONE, update("job_events", DONE, "status = 'failed'", "number = 4")),
    ("one_ending", SUBMITTED, update("job_events", SUBMITTED, "status = 'failed'", "number = 3")),
    ("one_ending", CANCELED, delete("job_events", CANCELED, "status = 'canceled'")),
    ("nothing_after_the_end", DONE, LATE_EVENT),
    ("thin_has_ended", DONE, update("jobs", DONE, "thinned_at = now()")),
    ("thin_has_ended", QUEUED, update("jobs", QUEUED, "thinned_at = now()")),
    ("attempt_has_its_job", AGAIN, delete("jobs", AGAIN)),
    ("attempts_are_numbered", DONE, update("attempts", DONE, "number = 2")),
    ("attempts_are_numbered", DONE, delete("attempts", DONE)),
    ("attempts_are_numbered", AGAIN, update("jobs", AGAIN, "attempts = 3")),
    ("one_live_attempt", AGAIN, update("attempts", AGAIN, "status = 'unknown'", "number = 1")),
    ("one_request", AGAIN, update("attempts", AGAIN, "fal_request_id = 'other'", "number = 1")),
    ("report_has_its_attempt", DONE, update("attempts", DONE, "fal_request_id = 'other'")),
    ("report_has_its_attempt", FAILED, delete("attempts", FAILED)),
    ("report_has_its_attempt", DONE, update("jobs", DONE, "fal_request_id = NULL")),
    ("failure_has_its_reason_at_fal", REFUSED, update("attempts", REFUSED, "status = 'submitting'")),
    ("submitting_has_its_attempt", SUBMITTING, update("attempts", SUBMITTING, "status = 'refused'")),
    ("unknown_has_its_attempt", UNKNOWN, update("attempts", UNKNOWN, "status = 'submitting'")),
    ("submitted_has_its_attempt", SUBMITTED, update("attempts", SUBMITTED, "status = 'unknown'")),
    ("submitted_has_its_attempt", RUNNING, delete("attempts", RUNNING)),
    ("queued_has_no_attempt_at_fal", QUEUED, ATTEMPT_IN_QUEUE),
    ("end_leaves_nothing_open", REFUSED, update("attempts", REFUSED, "status = 'unknown'")),
    ("end_leaves_nothing_open", FOUND, update("attempts", FOUND, "status = 'submitting'")),
    ("end_leaves_nothing_open", CANCELED, update("jobs", CANCELED, "fal_request_id = NULL")),
    ("has_a_next_step", SUBMITTED, update("jobs", SUBMITTED, "due_at = NULL")),
    ("has_a_next_step", QUEUED, update("jobs", QUEUED, "due_at = NULL")),
    ("moves_in_time", RUNNING, update("jobs", RUNNING, "due_at = now() - interval '16 minutes'")),
    ("is_sent_in_time", QUEUED, update("jobs", QUEUED, "due_at = now() - interval '16 minutes'")),
    ("needs_a_verdict", UNKNOWN, "SELECT"),
    ("ending_is_told", FAILED, update("jobs", FAILED, f"{ADDRESSED}, finished_at = now() - interval '6 days'")),
    ("delivery_has_its_event", DONE, told(DONE, sequence=9)),
    ("delivery_has_its_event", DONE, told(DONE, sequence=4)),
    ("delivery_has_its_event", DONE, told(DONE, kind="job.safe", sequence=7)),
    ("delivered_was_taken", DONE, told(DONE, status="delivered")),
]
# Not from the statements: ids in them tell the time, and differ from one test process to the next.
NAMES: Final = [f"{name}-{number}" for number, (name, _, _) in enumerate(PLANTED)]


@pytest.fixture
def filled(database_url: str) -> str:
    history.fill(database_url, JOBS, until=UNTIL)
    return database_url


def write(url: str, *statements: str) -> None:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def found(report: Report) -> dict[str, list[str]]:
    return {finding.check.name: finding.examples for finding in report.findings}


async def test_two_thousand_jobs_of_every_kind_are_clean(db, database_url):
    history.fill(database_url, 2000)

    report = await verify(db)

    assert report.ok
    assert {name: len(examples) for name, examples in found(report).items()} == {"needs_a_verdict": 10}
    assert [report.counts[name] for name in ("jobs", "accounts", "unfinished")] == [2000, 20, 50]
    assert report.counts["attempts"] == 2000
    assert report.counts["events"] > 9000
    assert report.counts["entries"] == 3990


async def test_an_empty_database_is_clean(db):
    report = await verify(db)

    assert report.ok
    assert report.findings == []
    assert report.counts["jobs"] == 0


@pytest.mark.parametrize(("name", "n", "statement"), PLANTED, ids=NAMES)
async def test_what_breaks_a_promise_is_named(db, filled, name, n, statement):
    write(filled, UNGUARD, statement)

    report = await verify(db)

    (check,) = [check for check in CHECKS if check.name == name]
    assert found(report)[name] == [tenant_of(n) if name.startswith("account") else job(n)]
    assert report.ok == (check.severity == "warning")


async def test_what_had_to_be_told_so_long_ago_that_it_may_be_pruned_is_not_looked_for(db, filled):
    write(filled, update("jobs", FAILED, f"{ADDRESSED}, finished_at = now() - interval '8 days'"))

    assert (await verify(db)).ok


def test_every_check_has_something_it_is_known_to_find():
    assert {name for name, _, _ in PLANTED} == {check.name for check in CHECKS}


def test_names_and_promises_are_told_apart():
    assert len({check.name for check in CHECKS}) == len({check.promise for check in CHECKS}) == len(CHECKS)


async def test_how_long_is_too_long_can_be_said(db, filled):
    write(filled, update("jobs", RUNNING, "due_at = now() - interval '16 minutes'"))

    assert "moves_in_time" not in found(await verify(db, overdue_s=3600))
    assert found(await verify(db, overdue_s=60))["moves_in_time"] == [job(RUNNING)]


async def test_of_many_the_first_are_named_and_all_are_counted(db, filled):
    write(filled, UNGUARD, "UPDATE jobs SET charged = charged - 0.01 WHERE status = 'succeeded'")

    report = await verify(db)

    (finding,) = [finding for finding in report.findings if finding.check.name == "charge_is_frozen_price"]
    assert (finding.count, len(finding.examples)) == (189, EXAMPLES)
    assert finding.examples == sorted(finding.examples)


async def test_it_can_write_nothing_and_has_the_time_it_takes(db):
    async with snapshot(db) as connection:
        assert await connection.scalar(text("SHOW statement_timeout")) == "15min"
        assert await connection.scalar(text("SHOW transaction_isolation")) == "repeatable read"
        with pytest.raises(DBAPIError, match="read-only"):
            await connection.execute(text("DELETE FROM job_events"))

    async with db.session() as session:
        assert await session.scalar(text("SHOW statement_timeout")) == "15s"
        assert await session.scalar(text("SHOW transaction_read_only")) == "off"


async def test_a_database_at_work_is_seen_as_it_was_at_one_moment(db):
    caller = await make.make_tenant(db)
    numbers, stop = count(), asyncio.Event()

    async def work() -> None:
        while not stop.is_set():
            await make.accept(db, caller)
            for intent in await make.take(db):
                request_id = f"req-{next(numbers)}"
                await make.submit(db, intent, request_id)
                await make.report(db, intent, make.success(request_id))

    working = [asyncio.create_task(work()) for _ in range(4)]
    reports = [await verify(db) for _ in range(10)]
    stop.set()
    await asyncio.gather(*working)

    assert [found(report) for report in reports] == [{}] * 10
    assert (await verify(db)).counts["jobs"] > reports[0].counts["jobs"]
