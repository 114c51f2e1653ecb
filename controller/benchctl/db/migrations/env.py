"""Alembic's entry point: runs the revisions on the connection that :mod:`benchctl.db.upgrade` hands over."""

from __future__ import annotations

from alembic import context
from benchctl.db.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
