"""Find a tenant's rare entries, without reading through its holds and charges."""

import sqlalchemy as sa
from alembic import op

revision = "rare"
down_revision = "unused"
branch_labels = None
depends_on = None

INDEX = "ix_ledger_entries_rare"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        # What an interrupted build left behind isn't valid, so it goes first.
        op.drop_index(INDEX, "ledger_entries", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            INDEX,
            "ledger_entries",
            ["tenant_id", "id"],
            postgresql_where=sa.text("kind IN ('deposit', 'release', 'adjust')"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index(INDEX, "ledger_entries", if_exists=True, postgresql_concurrently=True)
