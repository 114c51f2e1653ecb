"""Raw files and their fingerprints, where billed time went, and the history of prices, servers and exchange rates."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from benchctl.db.columns import CanonicalJson, Utc

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """To this schema."""
    op.create_table(
        "catalog_source",
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("etag", sa.String(), nullable=True),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("imported_at", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("url", name=op.f("pk_catalog_source")),
    )
    op.create_table(
        "exchange_rate",
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("rate_date", sa.Date(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("usd_per_unit", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("currency", "rate_date", "source", name=op.f("pk_exchange_rate")),
    )
    op.create_table(
        "job_time",
        sa.Column("sweep_id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["sweep_id", "job_id"], ["job.sweep_id", "job.job_id"], name=op.f("fk_job_time_sweep_id_job")
        ),
        sa.PrimaryKeyConstraint("sweep_id", "job_id", "cause", name=op.f("pk_job_time")),
    )
    op.create_table(
        "raw_run",
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("sweep_id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("ingested_at", Utc(), nullable=False),
        sa.Column("damage", CanonicalJson(), nullable=False),
        sa.ForeignKeyConstraint(
            ["sweep_id", "job_id"], ["job.sweep_id", "job.job_id"], name=op.f("fk_raw_run_sweep_id_job")
        ),
        sa.PrimaryKeyConstraint("origin", "path", name=op.f("pk_raw_run")),
    )
    with op.batch_alter_table("raw_run", schema=None) as batch_op:
        batch_op.create_index("ix_raw_run_job", ["sweep_id", "job_id"], unique=False)

    op.create_table(
        "server_history",
        sa.Column("vendor_id", sa.String(), nullable=False),
        sa.Column("server_id", sa.String(), nullable=False),
        sa.Column("since", Utc(), nullable=False),
        sa.Column("until", Utc(), nullable=True),
        sa.Column("status", sa.String(length=8), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("facts", CanonicalJson(), nullable=False),
        sa.ForeignKeyConstraint(
            ["vendor_id", "server_id"],
            ["server.vendor_id", "server.server_id"],
            name=op.f("fk_server_history_vendor_id_server"),
        ),
        sa.PrimaryKeyConstraint("vendor_id", "server_id", "since", name=op.f("pk_server_history")),
    )
    op.create_table(
        "price",
        sa.Column("vendor_id", sa.String(), nullable=False),
        sa.Column("region_id", sa.String(), nullable=False),
        sa.Column("zone_id", sa.String(), nullable=False),
        sa.Column("server_id", sa.String(), nullable=False),
        sa.Column("allocation", sa.String(length=8), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("since", Utc(), nullable=False),
        sa.Column("until", Utc(), nullable=True),
        sa.Column("price", sa.Float(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("unit", sa.String(length=8), nullable=False),
        sa.Column("operating_system", sa.String(), nullable=False),
        sa.Column("source_date", sa.Date(), nullable=True),
        sa.Column("licence", sa.String(), nullable=True),
        sa.Column("is_current", sa.Boolean(), nullable=False),
        sa.Column("flags", CanonicalJson(), nullable=False),
        sa.ForeignKeyConstraint(
            ["vendor_id", "region_id", "zone_id"],
            ["zone.vendor_id", "zone.region_id", "zone.zone_id"],
            name="fk_price_vendor_id_zone",
        ),
        sa.ForeignKeyConstraint(
            ["vendor_id", "server_id"], ["server.vendor_id", "server.server_id"], name=op.f("fk_price_vendor_id_server")
        ),
        sa.PrimaryKeyConstraint(
            "vendor_id", "region_id", "zone_id", "server_id", "allocation", "source", "since", name=op.f("pk_price")
        ),
    )
    with op.batch_alter_table("price", schema=None) as batch_op:
        batch_op.create_index("ix_price_server", ["vendor_id", "server_id"], unique=False)

    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.add_column(sa.Column("exit_code", sa.Integer(), nullable=True))

    with op.batch_alter_table("measurement", schema=None) as batch_op:
        batch_op.drop_index("ix_measurement_outcome")
        batch_op.add_column(sa.Column("raw_offset", sa.BigInteger(), nullable=True))

    with op.batch_alter_table("sweep", schema=None) as batch_op:
        batch_op.add_column(sa.Column("source", sa.String(), server_default="benchctl", nullable=False))
