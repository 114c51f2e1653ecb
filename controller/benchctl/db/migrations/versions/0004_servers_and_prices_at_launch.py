"""Every server that a job had, from when to when, and the price at launch in its own currency."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from benchctl.db.columns import Utc

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """To this schema."""
    op.create_table(
        "job_server",
        sa.Column("sweep_id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("launched_at", Utc(), nullable=False),
        sa.Column("gone_at", Utc(), nullable=True),
        sa.Column("price_per_hour", sa.Float(), nullable=True),
        sa.Column("currency", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["sweep_id", "job_id"], ["job.sweep_id", "job.job_id"], name=op.f("fk_job_server_sweep_id_job")
        ),
        sa.PrimaryKeyConstraint("sweep_id", "job_id", "launched_at", name=op.f("pk_job_server")),
    )
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.add_column(sa.Column("launch_price_per_hour", sa.Float(), nullable=True))
        batch_op.add_column(sa.Column("servers_rented", sa.Integer(), nullable=True))

    with op.batch_alter_table("measurement", schema=None) as batch_op:
        batch_op.add_column(sa.Column("launch_price_per_hour", sa.Float(), nullable=True))

    for table in ("job", "measurement"):
        op.execute(
            f"UPDATE {table} SET launch_price_per_hour = price_usd_per_hour "  # noqa: S608 - two names of our own
            "WHERE price_usd_per_hour IS NOT NULL AND currency = 'USD'"
        )
    # what was not in USD stands in the raw files alone: without their fingerprint the next ingest reads them again
    op.execute(
        "UPDATE raw_run SET fingerprint = '' WHERE EXISTS (SELECT 1 FROM job WHERE job.sweep_id = raw_run.sweep_id "
        "AND job.job_id = raw_run.job_id AND job.currency IS NOT NULL AND job.currency <> 'USD')"
    )
    # an archive that is known by its checksum would not be opened
    op.execute(
        "UPDATE catalog_source SET sha256 = '' WHERE kind = 'results' AND EXISTS (SELECT 1 FROM raw_run WHERE "
        "raw_run.origin = catalog_source.url AND raw_run.fingerprint = '')"
    )
