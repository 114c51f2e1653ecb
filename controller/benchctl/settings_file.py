"""YAML files of settings, read so that an error can name the line.

:class:`SettingsFile` holds what a file says and where it says it. What is checked elsewhere by key
(:class:`llama_bench_core.values.SettingsError`) becomes an error with file, key and line here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchctl.errors import SettingsFileError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llama_bench_core.values import SettingsError
    from yaml.nodes import Node


@dataclass(frozen=True)
class SettingsFile:
    """A file of settings.

    Attributes:
        path: the file.
        data: the mapping that it holds.
        lines: for each key, as ``scenarios.pp.512`` or ``models.0``, the line where it stands; the first is 1.
    """

    path: Path
    data: Mapping[str, Any]
    lines: Mapping[str, int]

    def error(self, key: str, problem: str, mend: str = "") -> SettingsFileError:
        """What is wrong with ``key``, or with the nearest thing above it that is in the file."""
        nearest = key
        while nearest and nearest not in self.lines:
            nearest = nearest.rpartition(".")[0]
        return SettingsFileError(str(self.path), key, self.lines.get(nearest, 1), problem, mend)

    def located(self, error: SettingsError, below: str = "") -> SettingsFileError:
        """An error of the core, with its place in this file; ``below`` is the key that was given to the core."""
        key = ".".join(part for part in (below, error.key) if part)
        return self.error(key, error.problem, error.mend)


def read(path: Path) -> SettingsFile:
    """Read a YAML file that holds a mapping.

    Raises:
        UsageError: there is no such file, or it can't be read.
        SettingsFileError: it is no YAML, holds no mapping, or has a key twice.
    """
    import yaml

    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"There is no file {path}.", "Check the path.") from None
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}.", "Check its permissions.") from error
    try:
        tree = yaml.compose(content, Loader=yaml.SafeLoader)
        data = yaml.safe_load(content)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "it can't be parsed"
        raise SettingsFileError(
            str(path), "", mark.line + 1 if mark else None, f"This is no valid YAML: {what}.", "Correct it."
        ) from error
    except RecursionError:
        raise SettingsFileError(str(path), "", None, "It is nested too deeply.", "Make it plainer.") from None
    if not isinstance(data, dict) or tree is None:
        raise SettingsFileError(str(path), "", 1, "It holds no keys and values.", "Write them as key: value.")
    lines: dict[str, int] = {}
    _index(path, tree, "", lines, set())
    return SettingsFile(path, data, lines)


def _index(path: Path, node: Node, key: str, lines: dict[str, int], seen: set[int]) -> None:
    """Note the line of every key below ``node``; an alias leads to a node that has been seen."""
    import yaml

    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        children = [(str(index), item, item) for index, item in enumerate(node.value)]
    elif isinstance(node, yaml.MappingNode):
        children = [(str(name.value), name, value) for name, value in node.value]
    else:
        return
    here: set[str] = set()
    for name, place, value in children:
        full = f"{key}.{name}" if key else name
        line = place.start_mark.line + 1
        if name in here:
            raise SettingsFileError(str(path), full, line, "This key is there twice.", "Remove one.")
        here.add(name)
        lines[full] = line
        _index(path, value, full, lines, seen)
