"""Make the first tables: tenants, keys, accounts, jobs, attempts, events, ledger, inbox."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tenants",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'", name=op.f("ck_tenants_name_is_plain")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
        sa.UniqueConstraint("name", name=op.f("uq_tenants_name")),
    )
    op.create_table(
        "webhook_inbox",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("headers", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("body_size", sa.BigInteger(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("tenant_id", sa.Uuid(), nullable=True),
        sa.Column("attempt_id", sa.Uuid(), nullable=True),
        sa.Column("deliveries", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("received_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("last_received_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("octet_length(digest) = 32", name=op.f("ck_webhook_inbox_digest_is_sha256")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_inbox")),
        sa.UniqueConstraint("digest", name=op.f("uq_webhook_inbox_digest")),
    )
    op.create_index("ix_webhook_inbox_received_at", "webhook_inbox", ["received_at"], unique=False)
    op.create_index(
        "ix_webhook_inbox_request_id",
        "webhook_inbox",
        ["request_id"],
        unique=False,
        postgresql_where=sa.text("request_id IS NOT NULL"),
    )
    op.create_table(
        "accounts",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("currency", sa.Text(), server_default="USD", nullable=False),
        sa.Column("available", sa.Numeric(precision=20, scale=10), server_default="0", nullable=False),
        sa.Column("held", sa.Numeric(precision=20, scale=10), server_default="0", nullable=False),
        sa.Column("spent", sa.Numeric(precision=20, scale=10), server_default="0", nullable=False),
        sa.Column("credit_limit", sa.Numeric(precision=20, scale=10), nullable=True),
        sa.CheckConstraint("currency = 'USD'", name=op.f("ck_accounts_currency")),
        sa.CheckConstraint("credit_limit >= 0", name=op.f("ck_accounts_credit_limit_not_negative")),
        sa.CheckConstraint("held >= 0", name=op.f("ck_accounts_held_not_negative")),
        sa.CheckConstraint("spent >= 0", name=op.f("ck_accounts_spent_not_negative")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_accounts_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_accounts")),
    )
    op.create_table(
        "api_keys",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint("octet_length(digest) = 32", name=op.f("ck_api_keys_digest_is_sha256")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_api_keys_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("tenant_id", "digest", name=op.f("uq_api_keys_tenant_id_digest")),
    )
    op.create_index("ix_api_keys_digest", "api_keys", ["digest"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("api_key_id", sa.Uuid(), nullable=True),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("input", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column(
            "metadata", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), server_default="{}", nullable=False
        ),
        sa.Column("end_user", sa.Text(), nullable=True),
        sa.Column("priority", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("order_digest", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("waiting_for", sa.Text(), nullable=True),
        sa.Column("output", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("error", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("attempts", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("event_count", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("fal_request_id", sa.Text(), nullable=True),
        sa.Column("queue_position", sa.BigInteger(), nullable=True),
        sa.Column("seconds", sa.Numeric(precision=12, scale=3), nullable=False),
        sa.Column("measured", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("min_seconds", sa.Numeric(precision=12, scale=3), server_default="0", nullable=False),
        sa.Column("step_seconds", sa.Numeric(precision=12, scale=3), server_default="0", nullable=False),
        sa.Column("price_per_second", sa.Numeric(precision=20, scale=10), nullable=False),
        sa.Column("base_amount", sa.Numeric(precision=20, scale=10), server_default="0", nullable=False),
        sa.Column("base_seconds", sa.Numeric(precision=12, scale=3), server_default="0", nullable=False),
        sa.Column("quoted", sa.Numeric(precision=20, scale=10), nullable=False),
        sa.Column("charged", sa.Numeric(precision=20, scale=10), nullable=True),
        sa.Column("charged_seconds", sa.Numeric(precision=12, scale=3), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("run_after", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("deadline_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("submitted_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("started_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("expected_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("finished_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("due_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("tries", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint("(status = 'succeeded') = (output IS NOT NULL)", name=op.f("ck_jobs_succeeded_has_output")),
        sa.CheckConstraint(
            "(status IN ('canceled', 'expired', 'failed', 'succeeded')) = (charged IS NOT NULL)",
            name=op.f("ck_jobs_ended_has_charge"),
        ),
        sa.CheckConstraint(
            "(status IN ('canceled', 'expired', 'failed', 'succeeded')) = (finished_at IS NOT NULL)",
            name=op.f("ck_jobs_ended_has_finish"),
        ),
        sa.CheckConstraint(
            "NOT (status IN ('canceled', 'expired', 'failed', 'succeeded')) OR (due_at IS NULL AND waiting_for IS NULL)",
            name=op.f("ck_jobs_ended_is_not_due"),
        ),
        sa.CheckConstraint("charged = 0 OR status = 'succeeded'", name=op.f("ck_jobs_only_success_is_charged")),
        sa.CheckConstraint("status <> 'failed' OR error IS NOT NULL", name=op.f("ck_jobs_failed_has_error")),
        sa.CheckConstraint(
            "status <> 'in_progress' OR started_at IS NOT NULL", name=op.f("ck_jobs_in_progress_was_started")
        ),
        sa.CheckConstraint("status <> 'submitting' OR attempts > 0", name=op.f("ck_jobs_submitting_has_attempt")),
        sa.CheckConstraint(
            "status IN ('canceled', 'expired', 'failed', 'in_progress', 'queued', 'submit_unknown', 'submitted', 'submitting', 'succeeded')",
            name=op.f("ck_jobs_status_known"),
        ),
        sa.CheckConstraint(
            "status NOT IN ('submitted', 'in_progress', 'succeeded') OR submitted_at IS NOT NULL",
            name=op.f("ck_jobs_at_fal_was_submitted"),
        ),
        sa.CheckConstraint("charged >= 0 AND charged <= quoted", name=op.f("ck_jobs_charge_within_quote")),
        sa.CheckConstraint(
            "charged_seconds IS NULL OR charged = round(base_amount + greatest(charged_seconds - base_seconds, 0) * price_per_second, 6)",
            name=op.f("ck_jobs_charge_is_seconds_times_price"),
        ),
        sa.CheckConstraint("priority BETWEEN 0 AND 2", name=op.f("ck_jobs_priority_known")),
        sa.CheckConstraint(
            "quoted = round(base_amount + greatest(seconds - base_seconds, 0) * price_per_second, 6)",
            name=op.f("ck_jobs_quote_is_seconds_times_price"),
        ),
        sa.CheckConstraint(
            "seconds > 0 AND price_per_second >= 0 AND base_amount >= 0", name=op.f("ck_jobs_price_not_negative")
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["accounts.tenant_id"], name=op.f("fk_jobs_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("tenant_id", "idempotency_key", name=op.f("uq_jobs_tenant_id_idempotency_key")),
    )
    op.create_index(
        "ix_jobs_deadline",
        "jobs",
        ["deadline_at"],
        unique=False,
        postgresql_where=sa.text("status = 'queued' AND deadline_at IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_due_to_dispatch",
        "jobs",
        ["priority", "due_at"],
        unique=False,
        postgresql_where=sa.text("status = 'queued'"),
    )
    op.create_index(
        "ix_jobs_due_to_reconcile",
        "jobs",
        ["due_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('submitting', 'submitted', 'in_progress')"),
    )
    op.create_index(
        "ix_jobs_end_user",
        "jobs",
        ["tenant_id", "end_user", "id"],
        unique=False,
        postgresql_where=sa.text("end_user IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_metadata",
        "jobs",
        ["metadata"],
        unique=False,
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
        postgresql_where=sa.text("metadata <> '{}'"),
    )
    op.create_index("ix_jobs_model", "jobs", ["tenant_id", "model", "id"], unique=False)
    op.create_index(
        "ix_jobs_recent_by_model",
        "jobs",
        ["model", "finished_at"],
        unique=False,
        postgresql_where=sa.text("status = 'succeeded'"),
    )
    op.create_index("ix_jobs_status", "jobs", ["tenant_id", "status", "id"], unique=False)
    op.create_table(
        "ledger_entries",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("from_side", sa.Text(), nullable=False),
        sa.Column("to_side", sa.Text(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=20, scale=10), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("hold_amount", sa.Numeric(precision=20, scale=10), nullable=True),
        sa.Column("charge_amount", sa.Numeric(precision=20, scale=10), nullable=True),
        sa.Column(
            "hold_kind",
            sa.Text(),
            sa.Computed("CASE WHEN hold_amount IS NOT NULL THEN 'hold' END", persisted=True),
            nullable=True,
        ),
        sa.Column(
            "charge_kind",
            sa.Text(),
            sa.Computed("CASE WHEN charge_amount IS NOT NULL THEN 'charge' END", persisted=True),
            nullable=True,
        ),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "(kind = 'deposit' AND from_side = 'outside' AND to_side = 'available') OR (kind = 'hold' AND from_side = 'available' AND to_side = 'held') OR (kind = 'charge' AND from_side = 'held' AND to_side = 'spent') OR (kind = 'release' AND from_side = 'held' AND to_side = 'available') OR (kind = 'adjust' AND from_side <> to_side AND from_side IN ('outside', 'available', 'spent') AND to_side IN ('outside', 'available', 'spent'))",
            name=op.f("ck_ledger_entries_kind_fits_sides"),
        ),
        sa.CheckConstraint(
            "(kind IN ('charge', 'release')) = (hold_amount IS NOT NULL)",
            name=op.f("ck_ledger_entries_resolution_names_hold"),
        ),
        sa.CheckConstraint(
            "charge_amount IS NULL OR kind = 'release'", name=op.f("ck_ledger_entries_only_release_follows_charge")
        ),
        sa.CheckConstraint(
            "kind <> 'charge' OR amount <= hold_amount", name=op.f("ck_ledger_entries_charge_within_hold")
        ),
        sa.CheckConstraint(
            "kind <> 'release' OR amount = hold_amount - coalesce(charge_amount, 0)",
            name=op.f("ck_ledger_entries_release_is_what_is_left"),
        ),
        sa.CheckConstraint(
            "kind IN ('deposit', 'adjust') OR job_id IS NOT NULL", name=op.f("ck_ledger_entries_job_named")
        ),
        sa.CheckConstraint("amount >= 0", name=op.f("ck_ledger_entries_amount_not_negative")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "job_id", "charge_kind", "charge_amount"],
            ["ledger_entries.tenant_id", "ledger_entries.job_id", "ledger_entries.kind", "ledger_entries.amount"],
            name="fk_ledger_entries_charge",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "job_id", "hold_kind", "hold_amount"],
            ["ledger_entries.tenant_id", "ledger_entries.job_id", "ledger_entries.kind", "ledger_entries.amount"],
            name="fk_ledger_entries_hold",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["accounts.tenant_id"], name=op.f("fk_ledger_entries_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_ledger_entries")),
        sa.UniqueConstraint(
            "tenant_id", "job_id", "kind", "amount", name=op.f("uq_ledger_entries_tenant_id_job_id_kind_amount")
        ),
    )
    op.create_index(
        "uq_ledger_entries_hold",
        "ledger_entries",
        ["tenant_id", "job_id"],
        unique=True,
        postgresql_where=sa.text("kind = 'hold'"),
    )
    op.create_index(
        "uq_ledger_entries_resolution",
        "ledger_entries",
        ["tenant_id", "job_id"],
        unique=True,
        postgresql_where=sa.text("kind IN ('charge', 'release') AND charge_amount IS NULL"),
    )
    op.create_index(
        "uq_ledger_entries_rest",
        "ledger_entries",
        ["tenant_id", "job_id"],
        unique=True,
        postgresql_where=sa.text("charge_amount IS NOT NULL"),
    )
    op.create_table(
        "attempts",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("token_digest", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("fal_request_id", sa.Text(), nullable=True),
        sa.Column("status_url", sa.Text(), nullable=True),
        sa.Column("response_url", sa.Text(), nullable=True),
        sa.Column("cancel_url", sa.Text(), nullable=True),
        sa.Column("error", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("answered_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status <> 'submitted' OR fal_request_id IS NOT NULL", name=op.f("ck_attempts_submitted_has_request")
        ),
        sa.CheckConstraint(
            "status IN ('refused', 'submitted', 'submitting', 'unknown')", name=op.f("ck_attempts_status_known")
        ),
        sa.CheckConstraint("octet_length(token_digest) = 32", name=op.f("ck_attempts_token_digest_is_sha256")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "job_id"], ["jobs.tenant_id", "jobs.id"], name=op.f("fk_attempts_tenant_id_job_id")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_attempts")),
        sa.UniqueConstraint("tenant_id", "fal_request_id", name=op.f("uq_attempts_tenant_id_fal_request_id")),
        sa.UniqueConstraint("tenant_id", "job_id", "number", name=op.f("uq_attempts_tenant_id_job_id_number")),
        sa.UniqueConstraint("tenant_id", "token_digest", name=op.f("uq_attempts_tenant_id_token_digest")),
    )
    op.create_index(
        "uq_attempts_one_live",
        "attempts",
        ["tenant_id", "job_id"],
        unique=True,
        postgresql_where=sa.text("status IN ('submitting', 'unknown', 'submitted')"),
    )
    op.create_table(
        "job_events",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "status IN ('canceled', 'expired', 'failed', 'in_progress', 'queued', 'submit_unknown', 'submitted', 'submitting', 'succeeded')",
            name=op.f("ck_job_events_status_known"),
        ),
        sa.CheckConstraint("number > 0", name=op.f("ck_job_events_number_positive")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "job_id"], ["jobs.tenant_id", "jobs.id"], name=op.f("fk_job_events_tenant_id_job_id")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "job_id", "number", name=op.f("pk_job_events")),
    )


def downgrade() -> None:
    op.drop_table("job_events")
    op.drop_index(
        "uq_attempts_one_live",
        table_name="attempts",
        postgresql_where=sa.text("status IN ('submitting', 'unknown', 'submitted')"),
    )
    op.drop_table("attempts")
    op.drop_index(
        "uq_ledger_entries_rest", table_name="ledger_entries", postgresql_where=sa.text("charge_amount IS NOT NULL")
    )
    op.drop_index(
        "uq_ledger_entries_resolution",
        table_name="ledger_entries",
        postgresql_where=sa.text("kind IN ('charge', 'release') AND charge_amount IS NULL"),
    )
    op.drop_index("uq_ledger_entries_hold", table_name="ledger_entries", postgresql_where=sa.text("kind = 'hold'"))
    op.drop_table("ledger_entries")
    op.drop_index("ix_jobs_status", table_name="jobs")
    op.drop_index("ix_jobs_recent_by_model", table_name="jobs", postgresql_where=sa.text("status = 'succeeded'"))
    op.drop_index("ix_jobs_model", table_name="jobs")
    op.drop_index(
        "ix_jobs_metadata",
        table_name="jobs",
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
        postgresql_where=sa.text("metadata <> '{}'"),
    )
    op.drop_index("ix_jobs_end_user", table_name="jobs", postgresql_where=sa.text("end_user IS NOT NULL"))
    op.drop_index(
        "ix_jobs_due_to_reconcile",
        table_name="jobs",
        postgresql_where=sa.text("status IN ('submitting', 'submitted', 'in_progress')"),
    )
    op.drop_index("ix_jobs_due_to_dispatch", table_name="jobs", postgresql_where=sa.text("status = 'queued'"))
    op.drop_index(
        "ix_jobs_deadline", table_name="jobs", postgresql_where=sa.text("status = 'queued' AND deadline_at IS NOT NULL")
    )
    op.drop_table("jobs")
    op.drop_index("ix_api_keys_digest", table_name="api_keys")
    op.drop_table("api_keys")
    op.drop_table("accounts")
    op.drop_index(
        "ix_webhook_inbox_request_id", table_name="webhook_inbox", postgresql_where=sa.text("request_id IS NOT NULL")
    )
    op.drop_index("ix_webhook_inbox_received_at", table_name="webhook_inbox")
    op.drop_table("webhook_inbox")
    op.drop_table("tenants")
