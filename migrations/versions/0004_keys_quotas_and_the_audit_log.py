"""Add API keys, browser sessions and the audit log, and note whose what is and which request made it."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# Nullable, so that code of the release before goes on writing rows without them.
OWNED = ("blobs", "models", "datasets", "jobs")


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("pepper", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("models", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("max_body_bytes", sa.BigInteger(), nullable=True),
        sa.Column("max_jobs", sa.Integer(), nullable=True),
        sa.Column("max_models", sa.Integer(), nullable=True),
        sa.Column("max_stored_bytes", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("role IN ('read', 'submit', 'admin')", name=op.f("ck_api_keys_role")),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_api_keys")),
    )
    op.create_table(
        "sessions",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["key_id"], ["api_keys.key_id"], name=op.f("fk_sessions_key_id_api_keys"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_sessions")),
    )
    op.create_table(
        "audit",
        sa.Column("entry", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("address", sa.String(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("entry", name=op.f("pk_audit")),
    )
    with op.batch_alter_table("audit") as table:
        table.create_index(table.f("ix_audit_key_id_entry"), ["key_id", "entry"], unique=False)
    for owned in OWNED:
        with op.batch_alter_table(owned) as table:
            table.add_column(sa.Column("key_id", sa.String(), nullable=True))
    with op.batch_alter_table("blobs") as table:
        table.create_index(table.f("ix_blobs_key_id"), ["key_id"], unique=False)
    with op.batch_alter_table("jobs") as table:
        table.add_column(sa.Column("request_id", sa.String(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("jobs") as table:
        table.drop_column("request_id")
    with op.batch_alter_table("blobs") as table:
        table.drop_index(table.f("ix_blobs_key_id"))
    for owned in OWNED:
        with op.batch_alter_table(owned) as table:
            table.drop_column("key_id")
    with op.batch_alter_table("audit") as table:
        table.drop_index(table.f("ix_audit_key_id_entry"))
    op.drop_table("audit")
    op.drop_table("sessions")
    op.drop_table("api_keys")
