"""What the shell completes: names of servers and models that the database has.

Completion is a courtesy: whatever is wrong with the database, it is no names, never a message in the middle of a line.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import click
    from sqlalchemy.orm import Session


def complete_server(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Servers that were measured: ``aws/g6.xlarge``, or ``g6.xlarge`` alone."""
    from benchctl.db.queries import server_names

    return _names(ctx, lambda session: server_names(session, incomplete))


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Models that were measured."""
    from benchctl.db.queries import model_names

    return _names(ctx, lambda session: model_names(session, incomplete))


def _names(ctx: click.Context, ask: Callable[[Session], list[str]]) -> list[str]:
    from sqlalchemy.exc import SQLAlchemyError

    from benchctl.cli.reading import reading_session
    from benchctl.errors import BenchctlError
    from benchctl.home import Home

    # The shell asks before any command runs: what 'benchctl --db URL' says stands in the outermost context alone.
    options = ctx.find_root().params
    with (
        suppress(BenchctlError, SQLAlchemyError),
        reading_session(Home.at(options.get("state_dir"), options.get("db"))) as session,
    ):
        return ask(session)
    return []
