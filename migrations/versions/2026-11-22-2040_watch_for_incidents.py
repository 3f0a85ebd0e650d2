"""Watch for incidents: chores that workers share, incidents, and when a result was given up."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

JSON = postgresql.JSONB(none_as_null=True, astext_type=sa.Text())
TIME = sa.TIMESTAMP(timezone=True)
NOW = sa.text("now()")


def upgrade() -> None:
    op.create_table(
        "chores",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, server_default=NOW, nullable=False),
        sa.Column("done_at", TIME, nullable=True),
        sa.Column("result", JSON, nullable=True),
        sa.Column("due_at", TIME, nullable=True),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_token", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("tries", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_chores")),
    )
    op.create_table(
        "incidents",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), server_default="", nullable=False),
        sa.Column("opened_at", TIME, server_default=NOW, nullable=False),
        sa.Column("last_seen_at", TIME, server_default=NOW, nullable=False),
        sa.Column("closed_at", TIME, nullable=True),
        sa.Column("since", TIME, nullable=False),
        sa.Column("until", TIME, nullable=False),
        sa.Column("jobs", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.Numeric(precision=20, scale=10), nullable=False),
        sa.Column("detail", JSON, nullable=False),
        sa.Column("dismissed_at", TIME, nullable=True),
        sa.Column("dismissed_by", sa.Text(), nullable=True),
        sa.Column("dismissed_why", sa.Text(), nullable=True),
        sa.CheckConstraint("jobs >= 0 AND amount >= 0", name=op.f("ck_incidents_not_negative")),
        sa.CheckConstraint("since <= until", name=op.f("ck_incidents_begins_before_it_ends")),
        sa.CheckConstraint(
            "(dismissed_at IS NOT NULL) = (dismissed_by IS NOT NULL)"
            " AND (dismissed_at IS NOT NULL) = (dismissed_why IS NOT NULL)",
            name=op.f("ck_incidents_dismissal_says_who_and_why"),
        ),
        sa.CheckConstraint(
            "dismissed_at IS NULL OR closed_at IS NOT NULL", name=op.f("ck_incidents_dismissed_is_closed")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incidents")),
    )
    op.create_index(
        "uq_incidents_open",
        "incidents",
        ["kind", "subject"],
        unique=True,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index(
        "ix_incidents_closed",
        "incidents",
        ["kind", "subject", "closed_at"],
        postgresql_where=sa.text("closed_at IS NOT NULL"),
    )
    op.create_index(
        "ix_incidents_dismissed", "incidents", ["kind", "until"], postgresql_where=sa.text("dismissed_at IS NOT NULL")
    )
    op.create_index("ix_incidents_kind", "incidents", ["kind", "id"])
    # Of a large inbox a fifth would have to be deleted before Postgres by itself made that room usable again.
    op.execute("ALTER TABLE webhook_inbox SET (autovacuum_vacuum_scale_factor = 0.01)")
    op.add_column("outputs", sa.Column("given_up_at", TIME, nullable=True))
    op.execute("UPDATE outputs SET given_up_at = now() WHERE due_at IS NULL AND safe_at IS NULL")
    with op.get_context().autocommit_block():
        # What an interrupted build left behind isn't valid, so it goes first.
        op.drop_index("ix_outputs_given_up", "outputs", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            "ix_outputs_given_up",
            "outputs",
            ["given_up_at"],
            postgresql_where=sa.text("given_up_at IS NOT NULL"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.drop_index("ix_outputs_given_up", "outputs", if_exists=True, postgresql_concurrently=True)
    op.drop_column("outputs", "given_up_at")
    op.execute("ALTER TABLE webhook_inbox RESET (autovacuum_vacuum_scale_factor)")
    op.drop_table("incidents")
    op.drop_table("chores")
