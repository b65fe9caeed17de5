"""Write down which blobs a sweep removes, and which code may use this schema."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# The oldest schema whose code works on this one: docs/decisions/0017-schemas-and-code-of-before.md.
OLDEST_CODE = "0004"


def upgrade() -> None:
    op.create_table(
        "doomed_blobs",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("sweeper", sa.String(), nullable=False),
        sa.Column("doomed_at", sa.BigInteger(), nullable=False),
        sa.Column("removed_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_doomed_blobs")),
    )
    allowance = op.create_table(
        "allowed_code",
        sa.Column("oldest", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("oldest", name=op.f("pk_allowed_code")),
    )
    op.bulk_insert(allowance, [{"oldest": OLDEST_CODE}])


def downgrade() -> None:
    op.drop_table("allowed_code")
    op.drop_table("doomed_blobs")
