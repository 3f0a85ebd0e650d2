"""Find the oldest jobs and callbacks, for retention: built while everybody reads and writes."""

import sqlalchemy as sa
from alembic import op

revision = "oldest"
down_revision = "thin"
branch_labels = None
depends_on = None

INDEXES = (
    ("ix_jobs_whole", "jobs", "finished_at", "finished_at IS NOT NULL AND thinned_at IS NULL AND safe_error IS NULL"),
    ("ix_callback_deliveries_settled", "callback_deliveries", "queued_at", "due_at IS NULL"),
)


def upgrade() -> None:
    op.execute("ALTER TABLE jobs VALIDATE CONSTRAINT ck_jobs_only_ended_is_thinned")
    with op.get_context().autocommit_block():
        for name, table, column, where in INDEXES:
            # What an interrupted build left behind isn't valid, so it goes first.
            op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
            op.create_index(name, table, [column], postgresql_where=sa.text(where), postgresql_concurrently=True)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for name, table, _, _ in INDEXES:
            op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
