"""Record what a model's adapters start from, where it learns adapters."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    with op.batch_alter_table("models") as table:
        table.add_column(sa.Column("adapter", sa.String(), nullable=True))
        table.add_column(sa.Column("lora_rank", sa.Integer(), nullable=True))
        table.add_column(sa.Column("lora_seed", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("models") as table:
        table.drop_column("lora_seed")
        table.drop_column("lora_rank")
        table.drop_column("adapter")
