"""Find attempts by their key, which their tokens carry; an index of random tokens is cold wherever it is touched."""

from alembic import op

revision = "keyed"
down_revision = "together"
branch_labels = None
depends_on = None

UNIQUE = "uq_attempts_tenant_id_token_digest"


def upgrade() -> None:
    # What it guaranteed, that two attempts have two tokens, chance guarantees: they are made of 272 random bits. A
    # version that looked them up by it was never released; beside such a one this isn't to be run.
    op.execute(f"-- squawk-ignore ban-drop-constraint\nALTER TABLE attempts DROP CONSTRAINT {UNIQUE}")


def downgrade() -> None:
    op.create_unique_constraint(UNIQUE, "attempts", ["tenant_id", "token_digest"])
