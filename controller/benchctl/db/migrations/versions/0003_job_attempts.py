"""Every try to rent a server that failed, with the vendor's words."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from benchctl.db.columns import Utc

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """To this schema."""
    op.create_table(
        "job_attempt",
        sa.Column("sweep_id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("tried_at", Utc(), nullable=False),
        sa.Column("region", sa.String(), nullable=True),
        sa.Column("zone", sa.String(), nullable=True),
        sa.Column("refusal", sa.String(), nullable=True),
        sa.Column("said", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["sweep_id", "job_id"], ["job.sweep_id", "job.job_id"], name=op.f("fk_job_attempt_sweep_id_job")
        ),
        sa.PrimaryKeyConstraint("sweep_id", "job_id", "tried_at", name=op.f("pk_job_attempt")),
    )
