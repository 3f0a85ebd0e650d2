"""Let jobs get thin long after their end, and vacuum what workers claim from before much of it is dead."""

import sqlalchemy as sa
from alembic import op

revision = "thin"
down_revision = "0016"
branch_labels = None
depends_on = None

# A claim begins at what was due first, which is where the dead entries of its index lie.
CLAIMED = ("jobs", "outputs", "callback_deliveries")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("thinned_at", sa.TIMESTAMP(timezone=True), nullable=True))
    op.create_check_constraint(
        op.f("ck_jobs_only_ended_is_thinned"),
        "jobs",
        "thinned_at IS NULL OR finished_at IS NOT NULL",
        postgresql_not_valid=True,
    )
    for table in CLAIMED:
        op.execute(f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0.02)")


def downgrade() -> None:
    for table in CLAIMED:
        op.execute(f"ALTER TABLE {table} RESET (autovacuum_vacuum_scale_factor)")
    op.drop_constraint(op.f("ck_jobs_only_ended_is_thinned"), "jobs", type_="check")
    op.drop_column("jobs", "thinned_at")
