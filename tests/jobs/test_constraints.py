"""What Postgres itself refuses of a job, whatever the code does."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from tests import factories as make

SUCCEEDED = "status = 'succeeded', output = '{}', submitted_at = now(), finished_at = now(), due_at = NULL"


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("status = 'canceled', due_at = NULL", "ended_has"),
        ("status = 'lost'", "status_known"),
        ("status = 'submitted'", "at_fal_was_submitted"),
        ("status = 'in_progress', submitted_at = now()", "in_progress_was_started"),
        ("status = 'submitting'", "submitting_has_attempt"),
        ("finished_at = now()", "ended_has_finish"),
        ("charged = 1", "ended_has_charge"),
        ("output = '{}'", "succeeded_has_output"),
        ("status = 'failed', finished_at = now(), charged = 0, due_at = NULL", "failed_has_error"),
        ("status = 'canceled', finished_at = now(), charged = 0", "ended_is_not_due"),
        ("status = 'canceled', finished_at = now(), charged = 1, due_at = NULL", "only_success_is_charged"),
        (f"{SUCCEEDED}, charged = 2.11", "charge_within_quote"),
        (f"{SUCCEEDED}, charged = 2.09, charged_seconds = 5", "charge_is_seconds_times_price"),
        ("quoted = 2.11", "quote_is_seconds_times_price"),
        ("price_per_second = -1", "price_not_negative"),
        ("priority = 3", "priority_known"),
    ],
)
async def test_a_job_that_contradicts_itself_is_refused(db, change, constraint):
    job = await make.accept(db, await make.make_tenant(db))

    with pytest.raises(IntegrityError, match=constraint):
        async with db.session() as session:
            await session.execute(text(f"UPDATE jobs SET {change} WHERE id = :id"), {"id": job.id})


async def test_a_second_attempt_beside_a_live_one_is_refused(db):
    intent = await make.taken(db, await make.make_tenant(db))
    second = text(
        "INSERT INTO attempts (tenant_id, id, job_id, number, token_digest, status)"
        " SELECT tenant_id, gen_random_uuid(), job_id, 2, sha256('other'), 'submitting' FROM attempts"
    )

    for status in ("submitting", "unknown", "submitted"):
        async with db.session() as session:
            live = text("UPDATE attempts SET status = :status, fal_request_id = 'r' WHERE id = :id")
            await session.execute(live, {"status": status, "id": intent.attempt.id})
        with pytest.raises(IntegrityError, match="uq_attempts_one_live"):
            async with db.session() as session:
                await session.execute(second)


@pytest.mark.parametrize("table", ["jobs", "attempts", "job_events", "ledger_entries", "accounts", "api_keys"])
async def test_every_unique_key_of_a_tenants_rows_begins_with_the_tenant(db, table):
    first_columns = text(
        "SELECT i.indexrelid::regclass::text, a.attname FROM pg_index i"
        " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"
        " WHERE i.indisunique AND i.indrelid = CAST(:table AS regclass)"
    )
    async with db.session() as session:
        found = (await session.execute(first_columns, {"table": table})).all()

    assert found
    assert {column for _, column in found} == {"tenant_id"}, found
