"""Suites: the carried ones by name, a user's own by path."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

from llama_bench_core.suite import Suite
from llama_bench_core.values import SettingsError

from benchctl import settings_file
from benchctl.content import content_root
from benchctl.errors import UsageError
from benchctl.models import load_models

if TYPE_CHECKING:
    from collections.abc import Iterable


def suite_names() -> tuple[str, ...]:
    """Names of the carried suites."""
    return tuple(sorted(path.stem for path in _folder().glob("*.yml")))


def load_suite(name_or_path: str, model_names: Iterable[str] | None = None) -> Suite:
    """A carried suite by its name, or a suite file by its path.

    Args:
        name_or_path: as ``quick`` or ``my/suite.yml``.
        model_names: the models that a suite may name; by default the carried ones.

    Raises:
        UsageError: there is no such suite, or the file can't be read.
        SettingsFileError: the file is wrong, or names an unknown model; it names key and line.
    """
    path = _path_of(name_or_path)
    document = settings_file.read(path)
    try:
        suite = Suite.from_dict(document.data)
    except SettingsError as error:
        raise document.located(error) from error
    known = {name.lower(): name for name in (load_models() if model_names is None else model_names)}
    for index, name in enumerate(suite.model_names):
        if name not in known.values():
            near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
            mend = f"Did you mean '{known[near[0]]}'?" if near else f"Known: {', '.join(known.values())}."
            raise document.error(f"models.{index}", f"There is no model '{name}'.", mend)
    return suite


def _path_of(name_or_path: str) -> Path:
    if name_or_path in suite_names():
        return _folder() / f"{name_or_path}.yml"
    path = Path(name_or_path).expanduser()
    if "/" in name_or_path or path.suffix in (".yml", ".yaml") or path.is_file():
        return path
    near = difflib.get_close_matches(name_or_path.lower(), suite_names(), n=1)
    raise UsageError(
        f"There is no suite '{name_or_path}'.",
        f"Did you mean '{near[0]}'?"
        if near
        else f"Known: {', '.join(suite_names())}. Or give the path of a YAML file.",
    )


def _folder() -> Path:
    return content_root() / "roles" / "llama_bench" / "files" / "suites"
