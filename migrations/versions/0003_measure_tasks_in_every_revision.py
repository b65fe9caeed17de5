"""Keep of every task in every revision how good its expert is and where its images are routed."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

# What was measured at a task's own step is known already; of later revisions nobody had measured any.
OWN_STEP = """
UPDATE triggers SET accuracy = (
    SELECT tasks.accuracy_expert FROM tasks
    WHERE tasks.task_key = triggers.task_key AND tasks.revision_learned = triggers.revision
)
"""


def upgrade() -> None:
    with op.batch_alter_table("triggers") as table:
        table.add_column(sa.Column("accuracy", sa.Double(), nullable=True))
        table.add_column(sa.Column("routing", sa.JSON(), nullable=True))
        table.add_column(sa.Column("unmeasured", sa.String(), nullable=True))
    op.execute(OWN_STEP)


def downgrade() -> None:
    with op.batch_alter_table("triggers") as table:
        table.drop_column("unmeasured")
        table.drop_column("routing")
        table.drop_column("accuracy")
