"""Which models there are: the carried list, a user's own list, any GGUF file, any file on Hugging Face."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from llama_bench_core import blueprint, gguf, synthetic
from llama_bench_core.gguf_format import Tensor
from llama_bench_core.suite import model_from_dict
from llama_bench_core.values import Model, SettingsError

from benchctl import settings_file
from benchctl.content import content_root
from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHARD = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
_HUGGING_FACE = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/\s]+))?/(?P<file>[^\s?#]+\.gguf)")


@dataclass(frozen=True)
class Entry:
    """A model of a list, and what people want to know of it.

    Attributes:
        model: the model.
        licence: under which it may be used.
        source: where its figures come from.
    """

    model: Model
    licence: str = ""
    source: str = ""


def load_entries(extra: Path | None = None) -> dict[str, Entry]:
    """The carried models and those of ``extra``, a file in the same format, by name in the files' order.

    Raises:
        UsageError: ``extra`` can't be read.
        SettingsFileError: a file is wrong; it names key and line.
    """
    entries = dict(_carried())
    if extra is not None:
        entries.update(_read_entries(extra))
    return entries


def load_models(extra: Path | None = None) -> dict[str, Model]:
    """As :func:`load_entries`, the models only."""
    return {name: entry.model for name, entry in load_entries(extra).items()}


def resolve_model(text: str, extra: Path | None = None) -> Model:
    """The model that a user names: by its name or file name, by the path of a GGUF file, or as ``hf:owner/repo/file``.

    A revision goes behind the repository: ``hf:owner/repo@main/folder/file.gguf``.

    Raises:
        UsageError: there is no such model, or the file is none that can be measured.
    """
    if text.startswith("hf:"):
        return _from_hugging_face(text)
    models = load_models(extra)
    known = {**{model.file.lower(): model for model in models.values()}, **{n.lower(): m for n, m in models.items()}}
    path = Path(text).expanduser()
    if "/" not in text and text.lower() in known:
        return known[text.lower()]
    if "/" in text or text.lower().endswith(".gguf") or path.is_file():
        return model_of_file(path)
    near = difflib.get_close_matches(text.lower(), known, n=1, cutoff=0.5)
    raise UsageError(
        f"There is no model '{text}'.",
        f"Did you mean '{known[near[0]].name}'?"
        if near
        else f"Known: {', '.join(models)}. Or give the path of a GGUF file, or hf:owner/repo/file.gguf.",
    )


def model_of_file(path: Path) -> Model:
    """The model that a GGUF file holds; its shape is taken over, so that synthetic weights can be made of it.

    Raises:
        UsageError: it is not there, not readable, cut short, or holds nothing that llama-bench measures by itself.
    """
    try:
        header = gguf.read_header(path)
    except gguf.GgufError as error:
        raise UsageError(error.problem, error.mend) from error
    shards = header.metadata.get("split.count", 1)
    if isinstance(shards, int) and shards > 1:
        raise UsageError(
            f"{path} is one of {shards} parts of a model.", "Join them with llama.cpp's 'llama-gguf-split --merge'."
        )
    if not header.architecture or not header.layers or header.metadata.get("general.type", "model") != "model":
        raise UsageError(f"{path} is a GGUF file, but holds no language model.", "Give the model itself.")
    if synthetic.is_sparse(header):
        raise UsageError(f"{path} is sparse: it has a header but no weights.", "Write it without --sparse.")
    return Model(
        name=path.stem,
        file=path.name,
        bytes=header.file_bytes,
        path=str(path.absolute()),
        parameters=header.parameters,
        tensor_bytes=header.tensor_bytes,
        layers=header.layers,
        shape=synthetic.shape_of(header),
    )


def _from_hugging_face(text: str) -> Model:
    match = _HUGGING_FACE.fullmatch(text)
    if match is None or ".." in text.split("/"):
        raise UsageError(f"'{text}' is not a file on Hugging Face.", "Write it as hf:owner/repo/file.gguf.")
    file = match["file"].rpartition("/")[2]
    if _SHARD.search(file):
        raise UsageError(f"{file} is one of several parts of a model.", "Give a model that is in one file.")
    revision = quote(match["revision"] or "main", safe="")
    url = f"https://huggingface.co/{match['repo']}/resolve/{revision}/{quote(match['file'])}"
    return Model(name=file.removesuffix(".gguf"), file=file, url=url)


@cache
def _carried() -> Mapping[str, Entry]:
    return _read_entries(content_root() / "roles" / "llama_bench" / "files" / "models.yml")


def _read_entries(path: Path) -> dict[str, Entry]:
    document = settings_file.read(path)
    for key in document.data:
        if key != "models":
            raise document.error(str(key), f"'{key}' is not a known key.", "The models stand under 'models'.")
    listed = document.data.get("models")
    if not isinstance(listed, list) or not listed:
        raise document.error("models", "This is not a list of models.", "Write each as '- name: ...'.")
    entries: dict[str, Entry] = {}
    for index, given in enumerate(listed):
        key = f"models.{index}"
        try:
            model = model_from_dict(given)
            if model.shape is not None:
                _check_shape(model)
        except SettingsError as error:
            raise document.located(error, key) from error
        if model.name in entries:
            raise document.error(f"{key}.name", f"'{model.name}' is there twice.", "Remove one.")
        notes = {note: given.get(note) or "" for note in ("licence", "source")}
        for note, value in notes.items():
            if not isinstance(value, str):
                raise document.error(f"{key}.{note}", f"{value!r} is not text.", "Put it in quotes.")
        entries[model.name] = Entry(model, **notes)
    return entries


def _check_shape(model: Model) -> None:
    """Hold the figures that are given against those that the shape gives."""
    assert model.shape is not None  # noqa: S101 - the caller asked
    plan = blueprint.draw(model.shape)
    parameters = sum(Tensor(*one).elements for one in plan.tensors)
    tensor_bytes = sum(Tensor(*one).bytes for one in plan.tensors)
    for key, given, drawn in (
        ("parameters", model.parameters, parameters),
        ("tensor_bytes", model.tensor_bytes, tensor_bytes),
    ):
        if given and given != drawn:
            raise SettingsError(f"{given} is not what the shape gives, {drawn}.", "Correct one of them.", key)
