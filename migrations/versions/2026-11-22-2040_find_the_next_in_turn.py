"""Find the next in turn: by tenant, model and priority among what waits, and count what is at fal."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

QUEUED = sa.text("status = 'queued'")
AT_FAL = sa.text("status IN ('submitting', 'submit_unknown', 'submitted', 'in_progress')")


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # What an interrupted build left behind isn't valid, so it goes first; the old index goes last.
        build("ix_jobs_lanes", "jobs", ["tenant_id", "model", "priority", "due_at"], QUEUED)
        build("ix_jobs_at_fal", "jobs", ["tenant_id", "model", "fal_account"], AT_FAL)
        build("ix_tenants_at_once", "tenants", ["id"], sa.text("at_once IS NOT NULL"))
        op.drop_index("ix_jobs_due_to_dispatch", "jobs", if_exists=True, postgresql_concurrently=True)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        build("ix_jobs_due_to_dispatch", "jobs", ["priority", "due_at"], QUEUED)
        op.drop_index("ix_tenants_at_once", "tenants", if_exists=True, postgresql_concurrently=True)
        op.drop_index("ix_jobs_at_fal", "jobs", if_exists=True, postgresql_concurrently=True)
        op.drop_index("ix_jobs_lanes", "jobs", if_exists=True, postgresql_concurrently=True)


def build(name: str, table: str, columns: list[str], where: sa.TextClause) -> None:
    op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
    op.create_index(name, table, columns, postgresql_where=where, postgresql_concurrently=True)
