"""Tell fal accounts apart: which one has a job, which one is locked, and how much a tenant may have at fal."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "fal_accounts",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("turn", sa.Uuid(), nullable=True),
        sa.Column("since", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("locked_why", sa.Text(), nullable=True),
        sa.Column("locked_detail", sa.Text(), nullable=True),
        sa.Column("probe_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("probes", sa.BigInteger(), server_default="0", nullable=False),
        sa.CheckConstraint(
            "locked_why IN ('account_locked', 'key_refused')", name=op.f("ck_fal_accounts_locked_why_known")
        ),
        sa.CheckConstraint("(locked_why IS NULL) = (probe_at IS NULL)", name=op.f("ck_fal_accounts_locked_is_probed")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_fal_accounts")),
    )
    # All there was before is the account of FAL_KEY; a constant default rewrites no rows.
    op.add_column("attempts", sa.Column("fal_account", sa.Text(), server_default="default", nullable=False))
    op.add_column("jobs", sa.Column("fal_account", sa.Text(), server_default="default", nullable=False))
    op.add_column("tenants", sa.Column("at_once", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("tenants", "at_once")
    op.drop_column("jobs", "fal_account")
    op.drop_column("attempts", "fal_account")
    op.drop_table("fal_accounts")
