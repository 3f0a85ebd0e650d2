"""Call callers: where, what about, and each try; and the address that an order names for itself."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "callback_endpoints",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("events", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("old_secret", sa.LargeBinary(), nullable=True),
        sa.Column("old_secret_until", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("failing_since", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("warned_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("disabled_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("disabled_why", sa.Text(), nullable=True),
        sa.Column("deleted_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(disabled_at IS NULL) = (disabled_why IS NULL)", name=op.f("ck_callback_endpoints_disabled_has_reason")
        ),
        sa.CheckConstraint(
            "(old_secret IS NULL) = (old_secret_until IS NULL)", name=op.f("ck_callback_endpoints_old_secret_ends")
        ),
        sa.CheckConstraint(
            "deleted_at IS NULL OR disabled_at IS NOT NULL", name=op.f("ck_callback_endpoints_deleted_is_disabled")
        ),
        sa.CheckConstraint("octet_length(secret) = 32", name=op.f("ck_callback_endpoints_secret_is_long")),
        sa.CheckConstraint("url IS NOT NULL OR disabled_at IS NULL", name=op.f("ck_callback_endpoints_of_jobs_stays")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_callback_endpoints_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_callback_endpoints")),
    )
    op.create_index(
        "uq_callback_endpoints_of_jobs",
        "callback_endpoints",
        ["tenant_id"],
        unique=True,
        postgresql_where=sa.text("url IS NULL"),
    )
    op.create_table(
        "callback_deliveries",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("dead_why", sa.Text(), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("queued_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("delivered_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("due_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("tries", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint(
            "(status = 'dead') = (dead_why IS NOT NULL)", name=op.f("ck_callback_deliveries_dead_has_reason")
        ),
        sa.CheckConstraint(
            "(status = 'delivered') = (delivered_at IS NOT NULL)",
            name=op.f("ck_callback_deliveries_delivered_has_time"),
        ),
        sa.CheckConstraint(
            "(status = 'pending') = (due_at IS NOT NULL)", name=op.f("ck_callback_deliveries_pending_is_due")
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'delivered', 'dead')", name=op.f("ck_callback_deliveries_status_known")
        ),
        sa.CheckConstraint(
            "(job_id IS NULL) = (sequence IS NULL)", name=op.f("ck_callback_deliveries_job_has_sequence")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "endpoint_id"],
            ["callback_endpoints.tenant_id", "callback_endpoints.id"],
            name=op.f("fk_callback_deliveries_tenant_id_endpoint_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "job_id"], ["jobs.tenant_id", "jobs.id"], name=op.f("fk_callback_deliveries_tenant_id_job_id")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_callback_deliveries")),
        sa.UniqueConstraint(
            "tenant_id",
            "job_id",
            "endpoint_id",
            "sequence",
            name=op.f("uq_callback_deliveries_tenant_id_job_id_endpoint_id_sequence"),
        ),
    )
    op.create_index(
        "ix_callback_deliveries_due",
        "callback_deliveries",
        ["tenant_id", "endpoint_id", "due_at"],
        unique=False,
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(
        "ix_callback_deliveries_endpoint", "callback_deliveries", ["tenant_id", "endpoint_id", "id"], unique=False
    )
    op.create_index("ix_callback_deliveries_status", "callback_deliveries", ["tenant_id", "status", "id"], unique=False)
    op.create_table(
        "callback_attempts",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("delivery_id", sa.Uuid(), nullable=False),
        sa.Column("status_code", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("duration_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "error IS NOT NULL OR status_code BETWEEN 200 AND 299", name=op.f("ck_callback_attempts_failed_has_error")
        ),
        sa.CheckConstraint("octet_length(body) <= 6144", name=op.f("ck_callback_attempts_body_is_clipped")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "delivery_id"],
            ["callback_deliveries.tenant_id", "callback_deliveries.id"],
            name=op.f("fk_callback_attempts_tenant_id_delivery_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_callback_attempts")),
    )
    op.create_index(
        "ix_callback_attempts_delivery", "callback_attempts", ["tenant_id", "delivery_id", "id"], unique=False
    )
    op.add_column("jobs", sa.Column("callback_url", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "callback_url")
    op.drop_index("ix_callback_attempts_delivery", table_name="callback_attempts")
    op.drop_table("callback_attempts")
    op.drop_index("ix_callback_deliveries_status", table_name="callback_deliveries")
    op.drop_index("ix_callback_deliveries_endpoint", table_name="callback_deliveries")
    op.drop_index(
        "ix_callback_deliveries_due", table_name="callback_deliveries", postgresql_where=sa.text("due_at IS NOT NULL")
    )
    op.drop_table("callback_deliveries")
    op.drop_index(
        "uq_callback_endpoints_of_jobs", table_name="callback_endpoints", postgresql_where=sa.text("url IS NULL")
    )
    op.drop_table("callback_endpoints")
