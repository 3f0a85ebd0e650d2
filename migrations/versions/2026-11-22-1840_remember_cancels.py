"""Remember cancels: when a job's was asked for, and what fal said to it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("cancel_requested_at", sa.TIMESTAMP(timezone=True), nullable=True))
    op.add_column("attempts", sa.Column("cancel_answer", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("attempts", "cancel_answer")
    op.drop_column("jobs", "cancel_requested_at")
