"""Read the header of a GGUF file: what a model is, without reading its weights.

A header comes from anywhere, so no length in it is believed: all are held against the size of the file before
anything is read or allocated. Big arrays (a tokenizer's vocabulary) are walked over, not kept.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .gguf_format import ARRAY, DEFAULT_ALIGNMENT, MAGIC, TENSOR_TYPES, VALUE_TYPES, VERSIONS, Skipped, Tensor, padded
from .values import CoreError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

KEPT_ARRAY_ITEMS = 4096
"""Arrays up to this length are kept; settings by layer are far shorter, vocabularies far longer."""

_TYPE_NAMES = {number: name for name, (number, _, _) in TENSOR_TYPES.items()}
_VALUE_NAMES = {number: name for name, (number, _) in VALUE_TYPES.items()}
_MAX_DIMENSIONS = 4
_MAX_KEY_BYTES = 65535  # gguf.md: keys have at most 2**16 - 1 bytes
_CHUNK = 1 << 20


class GgufError(CoreError):
    """A file is no GGUF that can be measured: not there, not readable, not one, cut short, damaged."""


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself.

    Attributes:
        path: the file.
        version: GGUF's version.
        metadata: values by key; arrays are tuples, or :class:`Skipped`.
        value_types: GGUF's type of each value, as ``u32``; of an array, as ``[f32]``.
        tensors: in the order of the file.
        alignment: tensors begin at multiples of it, bytes.
        data_offset: where the tensors' data begins in the file.
        file_bytes: actual size of the file.
    """

    path: Path
    version: int
    metadata: Mapping[str, Any]
    value_types: Mapping[str, str]
    tensors: tuple[Tensor, ...]
    alignment: int
    data_offset: int
    file_bytes: int

    @property
    def architecture(self) -> str:
        """As ``llama``; empty when the file does not say."""
        return str(self.metadata.get("general.architecture", ""))

    @property
    def name(self) -> str:
        """The model's own name, or else the file's without its ending."""
        return str(self.metadata.get("general.name") or self.path.stem)

    @property
    def expected_file_bytes(self) -> int:
        """The least size with which all tensors are whole."""
        return self.data_offset + max((one.offset + one.bytes for one in self.tensors), default=0)

    @property
    def parameters(self) -> int:
        """Number of values in all tensors: llama-bench's ``model_n_params``."""
        return sum(one.elements for one in self.tensors)

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors without padding: llama-bench's ``model_size``."""
        return sum(one.bytes for one in self.tensors)

    @property
    def layers(self) -> int:
        """Number of transformer blocks; 0 when the file does not say."""
        return self._number("block_count")

    @property
    def kv_bytes_per_token(self) -> int:
        """Size of the f16 key-value cache for one token of context, over all layers.

        The two lengths of a head times the key-value heads (fewer than heads under grouped-query attention), times
        two bytes. Sliding windows and compressed caches need less: this is the most that is allocated.
        """
        heads = "attention.head_count"
        groups = heads + "_kv" if self._has(heads + "_kv") else heads
        first = self._first(heads)
        default = self._number("embedding_length") // first if first > 0 else 0
        width = self._number("attention.key_length", default) + self._number("attention.value_length", default)
        return max(0, 2 * width * self._total(groups))

    def _has(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self.metadata

    def _number(self, key: str, default: int = 0) -> int:
        value = self.metadata.get(f"{self.architecture}.{key}", default)
        return value if isinstance(value, int) else default

    def _first(self, key: str) -> int:
        """The value for the first layer, of a number that may be given layer by layer."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        return value[0] if isinstance(value, tuple) and value and isinstance(value[0], int) else self._number(key)

    def _total(self, key: str) -> int:
        """The sum over all layers, of a number that may be given layer by layer."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        if isinstance(value, tuple):
            return sum(one for one in value[: max(0, self.layers)] if isinstance(one, int))
        return self._number(key) * self.layers


def read_header(path: str | os.PathLike[str]) -> Header:
    """Read and check the header of the GGUF file at ``path``.

    Raises:
        GgufError: there is no such file, it can't be read, is no GGUF that this tool knows, or is cut short.
    """
    where = Path(path)
    try:
        with where.open("rb") as stream:
            header = _read(where, stream)
    except FileNotFoundError:
        raise GgufError(f"There is no file {where}.", "Check the path.") from None
    except OSError as error:
        raise GgufError(f"{where} can't be read: {error.strerror}.", "Check the path and its permissions.") from error
    if header.file_bytes < header.expected_file_bytes:
        missing = header.expected_file_bytes - header.file_bytes
        raise GgufError(
            f"{where} is cut short: {missing} of {header.expected_file_bytes} bytes are missing.", "Fetch it again."
        )
    return header


@dataclass
class _Reader:
    """The bytes of a header, each length held against what the file still has."""

    path: Path
    stream: BinaryIO
    size: int
    position: int = 0
    seen: set[str] = field(default_factory=set)

    def take(self, count: int) -> bytes:
        self.need(count)
        data = self.stream.read(count)
        if len(data) != count:
            raise self.cut_short()
        self.position += count
        return data

    def need(self, count: int) -> None:
        if count > self.size - self.position:
            raise self.cut_short()

    def skip(self, count: int) -> None:
        self.need(count)
        self.position += count
        self.stream.seek(self.position)

    def number(self, code: str) -> Any:
        layout = struct.Struct("<" + code)
        return layout.unpack(self.take(layout.size))[0]

    def text(self, longest: int | None = None) -> str:
        length = self.number("Q")
        if longest is not None and length > longest:
            raise self.damaged(f"a name in it has {length} bytes")
        # Names and values are UTF-8 by the format; a stray byte must not keep a model from being measured.
        return self.take(length).decode("utf-8", "surrogateescape")

    def cut_short(self) -> GgufError:
        return GgufError(f"{self.path} is cut short within its header.", "Fetch it again.")

    def damaged(self, what: str) -> GgufError:
        return GgufError(f"{self.path} is damaged: {what}.", "Fetch it again.")


def _read(path: Path, stream: BinaryIO) -> Header:
    reader = _Reader(path, stream, os.fstat(stream.fileno()).st_size)
    version = _read_version(reader)
    tensor_count, pair_count = reader.number("Q"), reader.number("Q")
    # The shortest entries there can be: a pair has length, type and a byte; a tensor length, rank, type and offset.
    if pair_count * 13 + tensor_count * 24 > reader.size:
        raise reader.cut_short()
    metadata: dict[str, Any] = {}
    types: dict[str, str] = {}
    for _ in range(pair_count):
        key = reader.text(_MAX_KEY_BYTES)
        if key in metadata:
            raise reader.damaged(f"the key '{key}' is there twice")
        types[key], metadata[key] = _read_value(reader)
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        raise reader.damaged(f"its alignment is {alignment}, which is no power of two")
    tensors = tuple(_read_tensor(reader) for _ in range(tensor_count))
    expected = 0
    for one in tensors:
        if one.offset != expected:
            raise reader.damaged(f"the tensor '{one.name}' begins at {one.offset} instead of {expected}")
        expected += padded(one.bytes, alignment)
    return Header(path, version, metadata, types, tensors, alignment, padded(reader.position, alignment), reader.size)


def _read_version(reader: _Reader) -> int:
    if reader.size < len(MAGIC) or reader.take(len(MAGIC)) != MAGIC:
        raise GgufError(f"{reader.path} is not a GGUF file.", "Give a model in GGUF format.")
    version: int = reader.number("I")
    if version & 0xFFFF == 0 and version:
        raise GgufError(
            f"{reader.path} is a GGUF file for big-endian machines.",
            "Convert it with llama.cpp's gguf_convert_endian.py.",
        )
    if version not in VERSIONS:
        raise GgufError(
            f"{reader.path} has GGUF version {version}; known are {VERSIONS[0]} to {VERSIONS[-1]}.",
            "Fetch or convert it in a known version.",
        )
    return version


def _read_value(reader: _Reader) -> tuple[str, Any]:
    number = reader.number("I")
    if number != ARRAY:
        name = _value_name(reader, number)
        return name, reader.text() if name == "str" else reader.number(VALUE_TYPES[name][1])
    name = _value_name(reader, reader.number("I"))
    count: int = reader.number("Q")
    width = 8 if name == "str" else struct.calcsize("<" + VALUE_TYPES[name][1])
    reader.need(count * width)
    if name == "str":
        if count <= KEPT_ARRAY_ITEMS:
            return f"[{name}]", tuple(reader.text() for _ in range(count))
        _skip_texts(reader, count)
        return f"[{name}]", Skipped(count)
    if count > KEPT_ARRAY_ITEMS:
        reader.skip(count * width)
        return f"[{name}]", Skipped(count)
    return f"[{name}]", struct.unpack(f"<{count}{VALUE_TYPES[name][1]}", reader.take(count * width))


def _skip_texts(reader: _Reader, count: int) -> None:
    """Walk over ``count`` texts, a chunk of the file at a time: a vocabulary has a quarter of a million."""
    unpack = struct.Struct("<Q").unpack_from
    chunk, at = b"", 0
    for _ in range(count):
        if at + 8 > len(chunk):
            reader.skip(at)
            chunk, at = reader.stream.read(_CHUNK), 0
            if len(chunk) < 8:
                raise reader.cut_short()
        at += 8 + unpack(chunk, at)[0]
    reader.skip(at)


def _value_name(reader: _Reader, number: int) -> str:
    if number not in _VALUE_NAMES:
        raise reader.damaged(f"it holds a value of unknown type {number}")
    return _VALUE_NAMES[number]


def _read_tensor(reader: _Reader) -> Tensor:
    name = reader.text(_MAX_KEY_BYTES)
    if name in reader.seen:
        raise reader.damaged(f"the tensor '{name}' is there twice")
    reader.seen.add(name)
    dimensions = reader.number("I")
    if dimensions > _MAX_DIMENSIONS:
        raise reader.damaged(f"the tensor '{name}' has {dimensions} dimensions")
    shape = struct.unpack(f"<{dimensions}Q", reader.take(8 * dimensions))
    number, offset = reader.number("I"), reader.number("Q")
    if number not in _TYPE_NAMES:
        raise GgufError(
            f"{reader.path} holds tensors of type {number}, which this benchctl does not know.", "Use a newer benchctl."
        )
    tensor = Tensor(name, shape, _TYPE_NAMES[number], offset)
    row = shape[0] if shape else 1
    if row % TENSOR_TYPES[tensor.type][1]:
        raise reader.damaged(f"the rows of the tensor '{name}' are no whole number of {tensor.type} blocks")
    return tensor
