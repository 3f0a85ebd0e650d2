"""Keep the results: one row for each file of a job's output, and when the job's files were safe."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

JOBS = {
    "only_success_is_kept": "(safe_at IS NULL AND safe_error IS NULL) OR status = 'succeeded'",
    "safe_has_no_error": "safe_at IS NULL OR safe_error IS NULL",
    "measured_not_zero": "measured_seconds > 0",
}


def upgrade() -> None:
    op.create_table(
        "outputs",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("source_url", sa.Text(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=True),
        sa.Column("vanishes_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("path", sa.Text(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("sha256", sa.LargeBinary(), nullable=True),
        sa.Column("measured_seconds", sa.Numeric(precision=12, scale=3), nullable=True),
        sa.Column("safe_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("error", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("due_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("tries", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint("number > 0", name=op.f("ck_outputs_number_positive")),
        sa.CheckConstraint("(safe_at IS NOT NULL) = (path IS NOT NULL)", name=op.f("ck_outputs_safe_has_path")),
        sa.CheckConstraint(
            "safe_at IS NULL OR (size IS NOT NULL AND size > 0 AND sha256 IS NOT NULL AND octet_length(sha256) = 32)",
            name=op.f("ck_outputs_safe_has_content"),
        ),
        sa.CheckConstraint(
            "safe_at IS NULL OR (due_at IS NULL AND error IS NULL)", name=op.f("ck_outputs_safe_is_not_due")
        ),
        sa.CheckConstraint(
            "safe_at IS NOT NULL OR due_at IS NOT NULL OR error IS NOT NULL",
            name=op.f("ck_outputs_given_up_has_error"),
        ),
        sa.CheckConstraint("measured_seconds > 0", name=op.f("ck_outputs_measured_not_zero")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "job_id"], ["jobs.tenant_id", "jobs.id"], name=op.f("fk_outputs_tenant_id_job_id")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "job_id", "number", name=op.f("pk_outputs")),
    )
    op.create_index(
        "ix_outputs_due",
        "outputs",
        ["vanishes_at", "due_at"],
        unique=False,
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_table(
        "link_keys",
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("number = 1", name=op.f("ck_link_keys_only_one")),
        sa.CheckConstraint("octet_length(key) >= 32", name=op.f("ck_link_keys_key_long_enough")),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_link_keys")),
    )
    op.add_column("jobs", sa.Column("safe_at", sa.TIMESTAMP(timezone=True), nullable=True))
    op.add_column(
        "jobs",
        sa.Column("safe_error", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
    )
    op.add_column("jobs", sa.Column("measured_seconds", sa.Numeric(precision=12, scale=3), nullable=True))
    for name, rule in JOBS.items():
        op.create_check_constraint(op.f(f"ck_jobs_{name}"), "jobs", rule, postgresql_not_valid=True)


def downgrade() -> None:
    for name in reversed(JOBS):
        op.drop_constraint(op.f(f"ck_jobs_{name}"), "jobs", type_="check")
    op.drop_column("jobs", "measured_seconds")
    op.drop_column("jobs", "safe_error")
    op.drop_column("jobs", "safe_at")
    op.drop_table("link_keys")
    op.drop_index("ix_outputs_due", table_name="outputs", postgresql_where=sa.text("due_at IS NOT NULL"))
    op.drop_table("outputs")
