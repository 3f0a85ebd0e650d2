"""Tell which transaction wrote an event, so that a list of all events can be followed without a gap."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

INDEX = "ix_job_events_transaction_id"


def upgrade() -> None:
    # The rows there are come before all that follow; a constant default rewrites none of them.
    op.add_column("job_events", sa.Column("transaction_id", sa.BigInteger(), server_default="1", nullable=False))
    op.alter_column("job_events", "transaction_id", server_default=sa.text("(pg_current_xact_id()::text)::bigint"))
    with op.get_context().autocommit_block():
        op.drop_index(INDEX, "job_events", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            INDEX, "job_events", ["tenant_id", "transaction_id", "job_id", "number"], postgresql_concurrently=True
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index(INDEX, "job_events", if_exists=True, postgresql_concurrently=True)
    op.drop_column("job_events", "transaction_id")
