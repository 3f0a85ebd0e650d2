"""Narrow keys to browser tokens, note when a key was last used, and keep an audit log."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("facts", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_table(
        "browser_tokens",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("api_key_id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("end_user", sa.Text(), nullable=False),
        sa.Column("actions", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("models", sa.ARRAY(sa.Text()), nullable=True),
        sa.Column("max_spend", sa.Numeric(precision=20, scale=10), nullable=True),
        sa.Column("spent", sa.Numeric(precision=20, scale=10), server_default="0", nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint("octet_length(digest) = 32", name=op.f("ck_browser_tokens_digest_is_sha256")),
        sa.CheckConstraint("spent >= 0 AND spent <= max_spend", name=op.f("ck_browser_tokens_spent_within_bound")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "api_key_id"],
            ["api_keys.tenant_id", "api_keys.id"],
            name=op.f("fk_browser_tokens_tenant_id_api_key_id"),
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_browser_tokens")),
        sa.UniqueConstraint("tenant_id", "digest", name=op.f("uq_browser_tokens_tenant_id_digest")),
    )
    op.create_index("ix_browser_tokens_digest", "browser_tokens", ["digest"], unique=False)
    op.create_index("ix_browser_tokens_expires_at", "browser_tokens", ["expires_at"], unique=False)
    op.add_column("api_keys", sa.Column("last_used_at", sa.TIMESTAMP(timezone=True), nullable=True))
    op.add_column("api_keys", sa.Column("requests_per_minute", sa.BigInteger(), nullable=True))
    op.add_column("api_keys", sa.Column("replaced_by", sa.Uuid(), nullable=True))
    op.create_check_constraint(
        op.f("ck_api_keys_requests_per_minute_positive"),
        "api_keys",
        "requests_per_minute > 0",
        postgresql_not_valid=True,
    )
    op.add_column("jobs", sa.Column("browser_token_id", sa.Uuid(), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "browser_token_id")
    op.drop_constraint(op.f("ck_api_keys_requests_per_minute_positive"), "api_keys", type_="check")
    op.drop_column("api_keys", "replaced_by")
    op.drop_column("api_keys", "requests_per_minute")
    op.drop_column("api_keys", "last_used_at")
    op.drop_index("ix_browser_tokens_expires_at", table_name="browser_tokens")
    op.drop_index("ix_browser_tokens_digest", table_name="browser_tokens")
    op.drop_table("browser_tokens")
    op.drop_table("audit_log")
