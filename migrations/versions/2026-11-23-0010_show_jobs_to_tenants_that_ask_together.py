"""Show jobs to tenants that ask together, beside the policy for one tenant, which every other read goes by."""

from alembic import op

from migrations.rls import POLICY, show_together

revision = "together"
down_revision = "owners"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    show_together("jobs")


def downgrade() -> None:
    """Change them back."""
    op.execute(f"DROP POLICY {POLICY}_together ON jobs")
