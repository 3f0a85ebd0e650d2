"""
What each index is for, and what it takes: python -m tests.indexes [JOBS]

An index costs every write and a part of the disk for ever, so each has a reason here: what it refuses, or who finds
rows by it. Keys that the rows are named by need none.
"""

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import psycopg

from app.migrate import upgrade
from app.postgres import EmbeddedPostgres
from tests import history
from tests.verify.scale import HASTY

REASONS: Final = {
    "alembic_version_pkc": "Alembic's own",
    "ix_api_keys_digest": "a request brings only the key: whose is it?",
    "ix_attempts_fal_request_id": "whether a request of fal's is known to be anybody's",
    "ix_browser_tokens_digest": "a request brings only the token: whose is it?",
    "ix_browser_tokens_expires_at": "pruning",
    "ix_callback_attempts_delivery": "the tries of a delivery, and pruning them with it",
    "ix_callback_deliveries_dead": "the incident of what was given up, and whether an endpoint has such",
    "ix_callback_deliveries_due": "the sender's next, endpoint by endpoint",
    "ix_callback_deliveries_endpoint": "GET /v1/deliveries of an endpoint, and its replay",
    "ix_callback_deliveries_settled": "pruning",
    "ix_callback_deliveries_status": "GET /v1/deliveries of a status, and its replay",
    "ix_file_uses_job": "letting go of a job's files when it ends",
    "ix_files_prune_at": "pruning",
    "ix_incidents_closed": "whether an incident was closed while it was looked for",
    "ix_incidents_dismissed": "up to when a kind's facts are dismissed",
    "ix_incidents_kind": "incidents of a kind, newest first",
    "ix_job_events_transaction_id": "GET /v1/events, from a place on",
    "ix_jobs_at_fal": "how many are at fal for a tenant, model and account: the caps",
    "ix_jobs_deadline": "what expires in the queue",
    "ix_jobs_due_to_ask": "the reconciler's next, and the incident of what hangs",
    "ix_jobs_end_user": "GET /v1/jobs of an end user, and of its browser tokens",
    "ix_jobs_lanes": "the dispatcher's next, lane by lane",
    "ix_jobs_metadata": "GET /v1/jobs by labels",
    "ix_jobs_model": "GET /v1/jobs of a model",
    "ix_jobs_recent_by_model": "how long a model took lately",
    "ix_jobs_status": "GET /v1/jobs of a status, and what is done to many at once",
    "ix_jobs_whole": "what may get thin, oldest first",
    "ix_ledger_entries_rare": "GET /v1/ledger of a kind that not every job has",
    "ix_outputs_due": "the rescuer's next, soonest to vanish first",
    "ix_outputs_given_up": "the incident of results that couldn't be kept",
    "ix_tenants_at_once": "the few tenants with a cap of their own",
    "ix_webhook_inbox_received_at": "pruning",
    "uq_api_keys_tenant_id_digest": "a key is one key",
    "uq_attempts_one_live": "paid once: one attempt of a job may be at fal",
    "uq_attempts_tenant_id_fal_request_id": "a request of fal's belongs to one attempt",
    "uq_attempts_tenant_id_job_id_number": "attempts are numbered; the attempts of a job",
    "uq_browser_tokens_tenant_id_digest": "a token is one token",
    "uq_callback_deliveries_tenant_id_job_id_endpoint_id_sequence": "an event is told once; those of a job",
    "uq_callback_endpoints_of_jobs": "one endpoint stands for a tenant's callback_urls",
    "uq_incidents_open": "an incident is open once, whoever watches",
    "uq_jobs_retry_of": "a job is retried once",
    "uq_jobs_tenant_id_idempotency_key": "a repeated order brings the same job",
    "uq_ledger_entries_hold": "a job has one hold",
    "uq_ledger_entries_resolution": "a hold is resolved once",
    "uq_ledger_entries_rest": "what a charge left over is released once",
    "uq_ledger_entries_tenant_id_job_id_kind_amount": "entries name their hold's amount; the entries of a job",
    "uq_tenants_name": "a tenant's name is its own",
    "uq_webhook_inbox_digest": "a repeat of the same bytes stays one row",
}

INDEXES: Final = """
    SELECT i.indrelid::regclass::text, c.relname, i.indisunique, pg_relation_size(c.oid),
        substring(pg_get_indexdef(c.oid) FROM ' USING .*'), pg_table_size(i.indrelid)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE c.relnamespace = 'public'::regnamespace ORDER BY 1, 2
"""


class Index(NamedTuple):
    """One index, with its size and its table's in bytes; *how* is its definition after USING."""

    table: str
    name: str
    unique: bool
    size: int
    how: str
    table_size: int

    @property
    def needs_a_reason(self) -> bool:
        """Whether it isn't what a row is named by."""
        return self.name != f"pk_{self.table}"

    def begins(self, other: "Index") -> bool:
        """Whether all it can find, *other* finds too: the same rows, by the same columns and more."""
        mine, others = (re.fullmatch(r"(.*?)\((.*?)\)( WHERE .*)?", index.how) for index in (self, other))
        assert mine is not None and others is not None  # noqa: PT018
        same = (self.table, mine[1], mine[3]) == (other.table, others[1], others[3])
        return same and self.name != other.name and f"{others[2]}, ".startswith(f"{mine[2]}, ")


def indexes(url: str) -> list[Index]:
    """Every index of the database at *url*."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        return [Index(*row) for row in connection.execute(INDEXES)]


def report(found: list[Index], jobs: int) -> Iterator[str]:
    """A line for each table and each of its indexes, with bytes for each of *jobs*."""
    tables = {index.table: index.table_size for index in found}
    for table, size in sorted(tables.items(), key=lambda one: -one[1]):
        yield f"{table:62} {size / 1e6:9.1f} MB {size / jobs:7.0f} B/job"
        for index in sorted((index for index in found if index.table == table), key=lambda index: -index.size):
            why = REASONS.get(index.name, "the key")
            yield f"  {index.name:60} {index.size / 1e6:9.1f} MB {index.size / jobs:7.0f} B/job  {why}"
    rows, keys = sum(tables.values()), sum(index.size for index in found)
    yield f"{jobs:,} jobs: {rows / jobs:,.0f} B/job of rows, {keys / jobs:,.0f} B/job of indexes"


def main(jobs: int) -> None:
    """Make a past, and tell what each index of it takes."""
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedPostgres(Path(folder), settings=HASTY) as postgres,
    ):
        upgrade(postgres.url)
        history.fill(postgres.url, jobs)
        print("\n".join(report(indexes(postgres.url), jobs)))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
