"""``benchctl models``: what can be measured, synthetic weights, and whether model files are what they should be."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchctl.cli.render import Column, Output, emit, output_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchctl.home import Home

MODELS_FILE = click.option(
    "--models-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A YAML file with further models, in the format of the carried models.yml.",
)


def _size(value: int) -> str:
    return f"{value / 1024**3:.2f}" if value else ""


COLUMNS = (
    Column("name", "Model"),
    Column("parameters", "Parameters", "right"),
    Column("tensor_bytes", "Weights, GiB", "right", lambda row: _size(row["tensor_bytes"])),
    Column("licence", "Licence"),
    Column("here", "Here"),
)

VERIFIED_COLUMNS = (
    Column("path", "File"),
    Column("weights", "Weights"),
    Column("architecture", "Architecture"),
    Column("parameters", "Parameters", "right"),
    Column("bytes", "Size, GiB", "right", lambda row: _size(row["bytes"])),
    Column("checked", "Checked"),
    Column("ok", "Good"),
    Column("problem", "Problem"),
)


@click.group()
def models() -> None:
    """The models that can be measured; synthetic weights."""


@models.command("list")
@MODELS_FILE
@output_options()
@click.pass_obj
def list_models(home: Home, models_file: Path | None, as_json: bool, query: str | None, as_csv: bool) -> None:
    """List the models that suites can name, and which are on this machine."""
    from benchctl.models import load_entries

    rows = []
    for entry in load_entries(models_file).values():
        model = entry.model
        here = [weights for weights, path in _places(home, model.file) if path.is_file()]
        rows.append(
            {
                "name": model.name,
                "file": model.file,
                "parameters": model.parameters,
                "tensor_bytes": model.tensor_bytes,
                "bytes": model.bytes,
                "layers": model.layers,
                "sha256": model.sha256,
                "url": model.url,
                "licence": entry.licence,
                "source": entry.source,
                "here": here,
            }
        )
    emit(rows, COLUMNS, Output(as_json, as_csv, query))


@models.command()
@click.argument("model")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Folder to write to.  [default: the models' cache]"
)
@click.option("--sparse", is_flag=True, help="Header only, the body a hole: to check what llama-bench reads from it.")
@MODELS_FILE
@click.pass_obj
def synth(home: Home, model: str, out: Path | None, sparse: bool, models_file: Path | None) -> None:
    """Write synthetic weights: exact shapes and types, random values.

    MODEL is the name of a listed model, or the path of a GGUF file to imitate.
    """
    from llama_bench_core import synthetic

    from benchctl.errors import UsageError
    from benchctl.models import resolve_model

    found = resolve_model(model, models_file)
    folder = (out or home.cache / "models" / synthetic.FOLDER).absolute()
    target = folder / found.file
    if found.path and target.exists() and target.samefile(found.path):
        raise UsageError(f"{target} is the file to imitate itself.", "Choose another folder with --out.")
    if not sparse and synthetic.present(found, target):
        click.echo(f"{target} is there already.")
        return
    size = synthetic.file_bytes(found)
    with _Progress(f"Writing {found.file}", 0 if sparse else size) as advance:
        synthetic.write(found, target, advance, sparse=sparse)
    kind = "sparse: to check its header, not to be measured" if sparse else "synthetic weights"
    click.echo(f"{target}: {size / 1024**2:.1f} MiB, {kind}.")


@models.command()
@click.argument("which", nargs=-1, metavar="[PATH|MODEL]...")
@MODELS_FILE
@output_options()
@click.pass_obj
def verify(
    home: Home, which: tuple[str, ...], models_file: Path | None, as_json: bool, query: str | None, as_csv: bool
) -> None:
    """Check model files: header, size, figures, and the checksum where one is known.

    Without arguments all files in the models' cache are checked. Exit status 1 when one is bad.
    """
    from benchctl.errors import BenchctlError
    from benchctl.model_check import check
    from benchctl.models import load_models

    known = load_models(models_file)
    paths = list(_named(home, which, models_file)) if which else sorted((home.cache / "models").rglob("*.gguf"))
    with _Progress("Checking", sum(path.stat().st_size for path in paths if path.is_file())) as advance:
        done = 0
        verdicts = []
        for path in paths:
            verdicts.append(check(path, known.values(), partial(_shifted, advance, done)))
            done += verdicts[-1].bytes
    emit(
        [verdict.row() for verdict in verdicts],
        VERIFIED_COLUMNS,
        Output(as_json, as_csv, query),
        empty=f"There are no model files in {home.cache / 'models'}.",
    )
    bad = sum(not verdict.ok for verdict in verdicts)
    if bad:
        raise BenchctlError(
            f"{bad} of {len(verdicts)} files are not what they should be.", "Remove or fetch them again."
        )


def _places(home: Home, file: str) -> list[tuple[str, Path]]:
    """Where a model's real and synthetic files lie."""
    from llama_bench_core import synthetic

    folder = home.cache / "models"
    return [("real", folder / file), ("synthetic", folder / synthetic.FOLDER / file)]


def _named(home: Home, which: tuple[str, ...], models_file: Path | None) -> Iterator[Path]:
    """The files that the arguments mean; of a listed model all that are here, or the place where one should be."""
    from benchctl.errors import UsageError
    from benchctl.models import resolve_model

    for one in which:
        path = Path(one).expanduser()
        if "/" in one or path.exists():
            yield path
            continue
        model = resolve_model(one, models_file)
        here = [place for _, place in _places(home, model.file) if place.is_file()]
        if not here:
            raise UsageError(
                f"{model.name} is not on this machine.", f"Write synthetic weights with 'benchctl models synth {one}'."
            )
        yield from here


def _ignore(_: int) -> None:
    pass


def _shifted(advance: Callable[[int], None], before: int, done: int) -> None:
    advance(before + done)


class _Progress:
    """A progress bar on stderr, where that is a terminal: ``with _Progress(...) as advance: advance(bytes)``."""

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total = title, total
        self._bar: Any = None

    def __enter__(self) -> Callable[[int], None]:
        if not self._total or not sys.stderr.isatty():
            return _ignore
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
        task = self._bar.add_task(self._title, total=self._total)
        self._bar.start()

        def advance(done: int) -> None:
            self._bar.update(task, completed=done)

        return advance

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()
