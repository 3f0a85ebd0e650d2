"""Give files an owner: which of a tenant's end users a file is for, so that browser tokens reach their own only."""

import sqlalchemy as sa
from alembic import op

revision = "owners"
down_revision = "rare"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("files", sa.Column("end_user", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("files", "end_user")
