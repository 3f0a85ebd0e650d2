"""Ask about lost submits: find them among the due jobs, and fal's requests among all attempts."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # What an interrupted build left behind isn't valid, so it goes first; the old index goes last.
        op.drop_index("ix_jobs_due_to_ask", "jobs", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            "ix_jobs_due_to_ask",
            "jobs",
            ["due_at"],
            postgresql_where=sa.text("status IN ('submitting', 'submit_unknown', 'submitted', 'in_progress')"),
            postgresql_concurrently=True,
        )
        op.drop_index("ix_attempts_fal_request_id", "attempts", if_exists=True, postgresql_concurrently=True)
        op.create_index("ix_attempts_fal_request_id", "attempts", ["fal_request_id"], postgresql_concurrently=True)
        op.drop_index("ix_jobs_due_to_reconcile", "jobs", if_exists=True, postgresql_concurrently=True)
    op.execute("UPDATE jobs SET due_at = now() WHERE status = 'submit_unknown' AND due_at IS NULL")


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_jobs_due_to_reconcile", "jobs", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            "ix_jobs_due_to_reconcile",
            "jobs",
            ["due_at"],
            postgresql_where=sa.text("status IN ('submitting', 'submitted', 'in_progress')"),
            postgresql_concurrently=True,
        )
        op.drop_index("ix_attempts_fal_request_id", "attempts", if_exists=True, postgresql_concurrently=True)
        op.drop_index("ix_jobs_due_to_ask", "jobs", if_exists=True, postgresql_concurrently=True)
