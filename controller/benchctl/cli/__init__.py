"""The command line: a thin skin that parses, calls one function of the library, and renders its answer.

A command's module is imported when the command runs, not before: ``benchctl --help`` needs click and nothing else.
:func:`main` is the one place where an error becomes a sentence and an exit status.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

import click

from benchctl import __version__
from benchctl.errors import INTERRUPTED, BenchctlError

if TYPE_CHECKING:
    from collections.abc import Sequence

# name -> (module, attribute, the short help that the overview shows without importing the module)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "sweep": ("benchctl.cli.sweep", "sweep", "Plan, measure, collect, ingest: the main job."),
    "plan": ("benchctl.cli.sweep", "plan", "What a sweep would do and cost, and what it leaves out and why."),
    "status": ("benchctl.cli.status", "status", "Sweeps and their jobs, and what runs now."),
    "reap": ("benchctl.cli.reap", "reap", "Destroy what should not be alive, by asking the clouds."),
    "show": ("benchctl.cli.answers", "show", "Everything measured on one server."),
    "top": ("benchctl.cli.answers", "top", "The fastest or cheapest servers for one model and scenario."),
    "compare": ("benchctl.cli.compare", "compare", "Servers side by side: is the difference more than noise?"),
    "recommend": ("benchctl.cli.recommend", "recommend", "The cheapest servers that meet a need."),
    "coverage": ("benchctl.cli.coverage", "coverage", "What was measured, what was not, and why."),
    "costs": ("benchctl.cli.costs", "costs", "What measuring cost, and where the hours went."),
    "sql": ("benchctl.cli.sql", "sql", "Ask the database in SQL: one statement that reads."),
    "export": ("benchctl.cli.export", "export", "A data set ready to publish: SQLite, Parquet or CSV."),
    "ingest": ("benchctl.cli.ingest", "ingest", "Raw results into the database; twice is once."),
    "import": ("benchctl.cli.ingest", "import_group", "Results of others into the database: spare-cores."),
    "catalog": ("benchctl.cli.catalog", "catalog", "Servers and prices: import, fetch and list them."),
    "models": ("benchctl.cli.models", "models", "The models that can be measured; synthetic weights."),
    "replay": ("benchctl.cli.replay", "replay", "The policy over recorded runs: hours, money, rows kept and lost."),
    "doctor": ("benchctl.cli.doctor", "doctor", "What this machine has and lacks, and how to mend it."),
    "inventory": ("benchctl.cli.inventory", "inventory", "Rented servers that are alive, as an inventory for Ansible."),
    "playbook": ("benchctl.cli.playbook", "playbook", "Run a carried playbook with ansible-playbook."),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports the one that is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All names, in the order of :data:`COMMANDS`: the main job first."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the module of one command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - a wrong entry above is a programming error
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The overview, from the short texts above, so that nothing needs to be imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, short) for name, (_, _, short) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Click's own, with a "did you mean" for a mistyped name."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, COMMANDS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else " 'benchctl --help' lists the commands."
            raise click.UsageError(f"There is no command '{name}'.{hint}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="benchctl")
@click.option(
    "--state-dir",
    envvar="BENCHCTL_HOME",
    type=click.Path(file_okay=False),
    help="Where sweeps, raw results and the database live.  [env: BENCHCTL_HOME; default: the user's data directory]",
)
@click.option(
    "--db",
    envvar="BENCHCTL_DB",
    metavar="URL",
    help="Database: an SQLAlchemy URL or a path of an SQLite file.  [env: BENCHCTL_DB; default: STATE-DIR/benchctl.db]",
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, state_dir: str | None, db: str | None, debug: bool) -> None:
    """Which server should I rent to run this LLM, and what will a million tokens cost on it?

    Measures LLM inference with llama.cpp's llama-bench, keeps every number in a database, and answers from it.
    """
    from benchctl.clouds.logins import make_absolute
    from benchctl.home import Home

    # before anything reads them: engine, vendors' clients and a detached sweep all see the same
    make_absolute(os.environ)
    ctx.obj = Home.at(state_dir, db)
    ctx.meta["debug"] = debug


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors end as one sentence on stderr and the exit status of their kind."""
    from llama_bench_core.values import CoreError

    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        sys.exit(cli.main(args=words, prog_name="benchctl", standalone_mode=False) or 0)
    except click.ClickException as error:
        error.show()
        sys.exit(2 if isinstance(error, click.UsageError) else 1)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # the reader (head, less) has seen enough; nothing is wrong
        sys.stderr.close()
        sys.exit(0)
    except (BenchctlError, CoreError) as error:
        if debug:
            raise
        click.echo(f"benchctl: {error}", err=True)
        sys.exit(getattr(error, "exit_code", 1))
    except Exception as error:
        if debug:
            raise
        click.echo(
            f"benchctl: unexpected {type(error).__name__}: {error}. Run again with --debug for the traceback.", err=True
        )
        sys.exit(1)
