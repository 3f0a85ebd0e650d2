"""Money adds up: accounts, holds, charges and releases, each against what it follows from."""

from typing import Final

from app.verify.check import Check, Rows
from app.verify.words import ENDED

PRICE: Final = "round(base_amount + greatest({} - base_seconds, 0) * price_per_second, 6)"

# Every account beside its entries, and beside the holds of its unfinished jobs.
ACCOUNTS: Final = Rows(
    f"""
    SELECT coalesce(a.tenant_id, e.tenant_id) AS id, a.tenant_id, a.available, a.held, a.spent,
        coalesce(e.available, 0) AS available_by_entries, coalesce(e.held, 0) AS held_by_entries,
        coalesce(e.spent, 0) AS spent_by_entries, coalesce(h.held, 0) AS held_by_jobs, e.entries
    FROM accounts a
    FULL JOIN (
        SELECT tenant_id, sum(entries) AS entries,
            coalesce(sum(total) FILTER (WHERE to_side = 'available'), 0)
                - coalesce(sum(total) FILTER (WHERE from_side = 'available'), 0) AS available,
            coalesce(sum(total) FILTER (WHERE to_side = 'held'), 0)
                - coalesce(sum(total) FILTER (WHERE from_side = 'held'), 0) AS held,
            coalesce(sum(total) FILTER (WHERE to_side = 'spent'), 0)
                - coalesce(sum(total) FILTER (WHERE from_side = 'spent'), 0) AS spent
        FROM (
            SELECT tenant_id, from_side, to_side, sum(amount) AS total, count(*) AS entries
            FROM ledger_entries GROUP BY tenant_id, from_side, to_side
        ) AS sides
        GROUP BY tenant_id
    ) AS e ON e.tenant_id = a.tenant_id
    LEFT JOIN (
        SELECT j.tenant_id, sum(hold.amount) AS held
        FROM jobs j
        JOIN ledger_entries hold ON hold.tenant_id = j.tenant_id AND hold.job_id = j.id AND hold.kind = 'hold'
        WHERE j.status NOT IN {ENDED}
        GROUP BY j.tenant_id
    ) AS h ON h.tenant_id = a.tenant_id
    """,  # noqa: S608 - all of it is ours
    {"accounts": "count(tenant_id)", "entries": "sum(entries)"},
)

# Every job beside its entries. `rests` are releases of what a charge left over, `releases` those of a whole hold.
JOBS: Final = Rows(
    f"""
    SELECT coalesce(j.id, e.job_id) AS id, j.id AS job_id, j.status, j.status IN {ENDED} AS ended,
        j.quoted, j.charged, j.seconds, j.charged_seconds, j.price_per_second, j.base_amount, j.base_seconds,
        coalesce(e.holds, 0) AS holds, coalesce(e.charges, 0) AS charges, coalesce(e.releases, 0) AS releases,
        coalesce(e.rests, 0) AS rests, coalesce(e.held, 0) AS held_by_entries,
        coalesce(e.charged, 0) AS charged_by_entries, coalesce(e.released, 0) AS released_by_entries
    FROM jobs j
    FULL JOIN (
        SELECT tenant_id, job_id,
            count(*) FILTER (WHERE kind = 'hold') AS holds,
            count(*) FILTER (WHERE kind = 'charge') AS charges,
            count(*) FILTER (WHERE kind = 'release' AND charge_amount IS NULL) AS releases,
            count(*) FILTER (WHERE kind = 'release' AND charge_amount IS NOT NULL) AS rests,
            sum(amount) FILTER (WHERE kind = 'hold') AS held,
            sum(amount) FILTER (WHERE kind = 'charge') AS charged,
            sum(amount) FILTER (WHERE kind = 'release') AS released
        FROM ledger_entries WHERE job_id IS NOT NULL
        GROUP BY tenant_id, job_id
    ) AS e ON e.tenant_id = j.tenant_id AND e.job_id = j.id
    """,  # noqa: S608 - all of it is ours
    {"jobs": "count(job_id)"},
)

CHECKS: Final = (
    Check(
        "account_is_its_entries",
        "Every account's sides are the sum of its entries.",
        ACCOUNTS,
        "tenant_id IS NULL OR (available, held, spent) <> (available_by_entries, held_by_entries, spent_by_entries)",
    ),
    Check(
        "account_holds_for_its_jobs",
        "What an account holds is the sum of its unfinished jobs' holds.",
        ACCOUNTS,
        "held <> held_by_jobs",
    ),
    Check("entry_has_its_job", "Every entry that names a job names one there is.", JOBS, "job_id IS NULL"),
    Check("one_hold", "Every job has one hold.", JOBS, "job_id IS NOT NULL AND holds <> 1"),
    Check("hold_is_quote", "What is held for a job is its quote.", JOBS, "holds = 1 AND held_by_entries <> quoted"),
    Check(
        "one_resolution",
        "Every ended job's hold is resolved once: by a charge, or by a release of all of it.",
        JOBS,
        "ended AND charges + releases <> 1",
    ),
    Check(
        "unfinished_keeps_its_hold",
        "No verdict, no refund: an unfinished job's hold is untouched.",
        JOBS,
        "NOT ended AND charges + releases + rests > 0",
    ),
    Check(
        "nothing_is_left_of_a_hold",
        "Of an ended job's hold, what isn't charged is released, to the last micro-dollar.",
        JOBS,
        "ended AND holds = 1 AND held_by_entries <> charged_by_entries + released_by_entries",
    ),
    Check(
        "charge_is_in_ledger",
        "What a job says it was charged is what the ledger says.",
        JOBS,
        "job_id IS NOT NULL AND charged IS DISTINCT FROM CASE WHEN ended THEN charged_by_entries END",
    ),
    Check(
        "only_success_is_charged",
        "A job that succeeded is charged, and no other is.",
        JOBS,
        "(status <> 'succeeded' AND charges > 0) OR (status = 'succeeded' AND charges = 0)",
    ),
    Check(
        "charge_is_frozen_price",
        "A charge is seconds × the price the job was accepted at.",
        JOBS,
        f"status = 'succeeded' AND charged IS DISTINCT FROM {PRICE.format('charged_seconds')}",
    ),
    Check(
        "quote_is_frozen_price",
        "A quote is seconds × the price the job was accepted at.",
        JOBS,
        f"quoted <> {PRICE.format('seconds')}",
    ),
    Check(
        "charge_within_quote",
        "No job costs more than its quote.",
        JOBS,
        "greatest(charged, charged_by_entries) > quoted",
    ),
)
