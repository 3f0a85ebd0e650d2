"""Drop an index that nobody finds anything by: webhooks are looked up by their bytes, or by their age."""

import sqlalchemy as sa
from alembic import op

revision = "unused"
down_revision = "oldest"
branch_labels = None
depends_on = None

INDEX = "ix_webhook_inbox_request_id"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index(INDEX, "webhook_inbox", if_exists=True, postgresql_concurrently=True)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.create_index(
            INDEX,
            "webhook_inbox",
            ["request_id"],
            postgresql_where=sa.text("request_id IS NOT NULL"),
            postgresql_concurrently=True,
            if_not_exists=True,
        )
