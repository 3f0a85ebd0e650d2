"""Keep tenants apart in the database itself: what callers read is read as a role that sees one tenant's rows."""

from alembic import op

from migrations.rls import make_reader, protect, unprotect

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

TABLES = (
    "accounts",
    "api_keys",
    "attempts",
    "audit_log",
    "browser_tokens",
    "callback_attempts",
    "callback_deliveries",
    "callback_endpoints",
    "file_uses",
    "files",
    "job_events",
    "jobs",
    "ledger_entries",
    "outputs",
    "webhook_inbox",
)


def upgrade() -> None:
    make_reader()
    for table in TABLES:
        protect(table)
    op.execute("ALTER TABLE api_keys VALIDATE CONSTRAINT ck_api_keys_requests_per_minute_positive")


def downgrade() -> None:
    # The role stays: it belongs to the whole cluster, and other databases may use it.
    for table in reversed(TABLES):
        unprotect(table)
