"""Whether a model file is what it should be: its header, its size, its figures, its checksum."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from llama_bench_core import gguf, synthetic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from llama_bench_core.values import Model

_CHUNK = 4 << 20


@dataclass(frozen=True)
class Verdict:
    """What was found of one file.

    Attributes:
        path: the file.
        ok: whether nothing is wrong with it.
        problem: what is wrong; empty if nothing is.
        model: the listed model that it is, by its file name; empty for none.
        weights: ``real``, ``synthetic``, ``sparse`` (a header without weights), or empty when it can't be read.
        architecture: as ``llama``.
        parameters: number of parameters.
        bytes: its size.
        checked: what it was held against: ``header``, ``figures``, ``size``, ``sha256``.
    """

    path: str
    ok: bool
    problem: str = ""
    model: str = ""
    weights: str = ""
    architecture: str = ""
    parameters: int = 0
    bytes: int = 0
    checked: tuple[str, ...] = ()

    def row(self) -> dict[str, Any]:
        """The verdict as plain data."""
        return {**asdict(self), "checked": list(self.checked)}


def check(path: Path, models: Iterable[Model], progress: Callable[[int], None] = lambda _: None) -> Verdict:
    """Check the file at ``path`` against itself, and against the listed model of the same file name.

    Args:
        path: the file.
        models: the listed models.
        progress: called with the bytes read for a checksum.
    """
    try:
        header = gguf.read_header(path)
    except gguf.GgufError as error:
        return Verdict(str(path), ok=False, problem=error.problem)
    weights = "real"
    if synthetic.is_synthetic(header):
        weights = "sparse" if synthetic.is_sparse(header) else "synthetic"
    model = next((one for one in models if one.file == path.name), None)
    problem, checked = ("", ()) if model is None else _compare(header, model, weights, progress)
    return Verdict(
        path=str(path),
        ok=not problem,
        problem=problem,
        model=model.name if model else "",
        weights=weights,
        architecture=header.architecture,
        parameters=header.parameters,
        bytes=header.file_bytes,
        checked=("header", *checked),
    )


def _compare(
    header: gguf.Header, model: Model, weights: str, progress: Callable[[int], None]
) -> tuple[str, tuple[str, ...]]:
    """What differs from the listed model, and what was compared."""
    checked = []
    for what, expected, found in (
        ("parameters", model.parameters, header.parameters),
        ("bytes of weights", model.tensor_bytes, header.tensor_bytes),
    ):
        if expected:
            checked = ["figures"]
            if found != expected:
                return f"It has {found} {what} where {model.name} has {expected}.", tuple(checked)
    if weights != "real":
        return "", tuple(checked)
    if model.bytes:
        checked.append("size")
        if header.file_bytes != model.bytes:
            return f"It has {header.file_bytes} bytes where {model.name} has {model.bytes}.", tuple(checked)
    if model.sha256:
        checked.append("sha256")
        try:
            found_sum = _sha256(header.path, progress)
        except OSError as error:
            return f"It can't be read to its end: {error.strerror}.", tuple(checked)
        if found_sum != model.sha256:
            return f"Its SHA-256 is {found_sum} instead of {model.sha256}.", tuple(checked)
    return "", tuple(checked)


def _sha256(path: Path, progress: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    done = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            progress(done)
    return digest.hexdigest()
