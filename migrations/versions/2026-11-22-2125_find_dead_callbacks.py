"""Find dead callbacks, whoever's they are."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

INDEX = "ix_callback_deliveries_dead"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # What an interrupted build left behind isn't valid, so it goes first.
        op.drop_index(INDEX, "callback_deliveries", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            INDEX,
            "callback_deliveries",
            ["tenant_id", "endpoint_id"],
            postgresql_where=sa.text("status = 'dead'"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index(INDEX, "callback_deliveries", if_exists=True, postgresql_concurrently=True)
