"""Take files for inputs: one row for each, who needs it, and under which addresses fal was told them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("content_type", sa.Text(), nullable=True),
        sa.Column("sha256", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("stored_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("prune_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("fal_url", sa.Text(), nullable=True),
        sa.Column("fal_url_until", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint("size > 0", name=op.f("ck_files_size_positive")),
        sa.CheckConstraint(
            "stored_at IS NULL OR (content_type IS NOT NULL AND sha256 IS NOT NULL AND octet_length(sha256) = 32)",
            name=op.f("ck_files_stored_has_content"),
        ),
        sa.CheckConstraint("(fal_url IS NULL) = (fal_url_until IS NULL)", name=op.f("ck_files_fal_url_has_end")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_files_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_files")),
    )
    op.create_index("ix_files_prune_at", "files", ["prune_at"], unique=False)
    op.create_table(
        "file_uses",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id", "file_id"], ["files.tenant_id", "files.id"], name=op.f("fk_file_uses_tenant_id_file_id")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "job_id"], ["jobs.tenant_id", "jobs.id"], name=op.f("fk_file_uses_tenant_id_job_id")
        ),
        sa.PrimaryKeyConstraint("tenant_id", "file_id", "job_id", name=op.f("pk_file_uses")),
    )
    op.create_index("ix_file_uses_job", "file_uses", ["tenant_id", "job_id"], unique=False)
    op.add_column(
        "attempts", sa.Column("sent_urls", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True)
    )


def downgrade() -> None:
    op.drop_column("attempts", "sent_urls")
    op.drop_index("ix_file_uses_job", table_name="file_uses")
    op.drop_table("file_uses")
    op.drop_index("ix_files_prune_at", table_name="files")
    op.drop_table("files")
