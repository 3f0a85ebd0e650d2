"""Retry a job once: built while everybody reads and writes."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE jobs VALIDATE CONSTRAINT fk_jobs_tenant_id_retry_of")
    with op.get_context().autocommit_block():
        # What an interrupted build left behind isn't valid, so it goes first.
        op.drop_index("uq_jobs_retry_of", "jobs", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            "uq_jobs_retry_of",
            "jobs",
            ["tenant_id", "retry_of"],
            unique=True,
            postgresql_where=sa.text("retry_of IS NOT NULL"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("uq_jobs_retry_of", "jobs", if_exists=True, postgresql_concurrently=True)
