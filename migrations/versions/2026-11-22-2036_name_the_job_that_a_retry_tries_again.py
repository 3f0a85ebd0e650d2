"""Name the job that a retry tries again."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("retry_of", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        op.f("fk_jobs_tenant_id_retry_of"),
        "jobs",
        "jobs",
        ["tenant_id", "retry_of"],
        ["tenant_id", "id"],
        postgresql_not_valid=True,
    )


def downgrade() -> None:
    op.drop_column("jobs", "retry_of")
