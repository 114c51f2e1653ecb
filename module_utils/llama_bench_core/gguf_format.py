"""GGUF, the file format: its types and their numbers, a tensor's entry, and how a header is written.

As ggml's ``docs/gguf.md`` describes it; the tensor types are those of ``ggml.h`` and ``ggml-common.h``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32

# name: (number in the file, elements per block, bytes per block), from ggml.h and ggml-common.h
TENSOR_TYPES: dict[str, tuple[int, int, int]] = {
    "F32": (0, 1, 4),
    "F16": (1, 1, 2),
    "Q4_0": (2, 32, 18),
    "Q4_1": (3, 32, 20),
    "Q5_0": (6, 32, 22),
    "Q5_1": (7, 32, 24),
    "Q8_0": (8, 32, 34),
    "Q8_1": (9, 32, 36),
    "Q2_K": (10, 256, 84),
    "Q3_K": (11, 256, 110),
    "Q4_K": (12, 256, 144),
    "Q5_K": (13, 256, 176),
    "Q6_K": (14, 256, 210),
    "Q8_K": (15, 256, 292),
    "IQ2_XXS": (16, 256, 66),
    "IQ2_XS": (17, 256, 74),
    "IQ3_XXS": (18, 256, 98),
    "IQ1_S": (19, 256, 50),
    "IQ4_NL": (20, 32, 18),
    "IQ3_S": (21, 256, 110),
    "IQ2_S": (22, 256, 82),
    "IQ4_XS": (23, 256, 136),
    "I8": (24, 1, 1),
    "I16": (25, 1, 2),
    "I32": (26, 1, 4),
    "I64": (27, 1, 8),
    "F64": (28, 1, 8),
    "IQ1_M": (29, 256, 56),
    "BF16": (30, 1, 2),
    "TQ1_0": (34, 256, 54),
    "TQ2_0": (35, 256, 66),
    "MXFP4": (39, 32, 17),
    "NVFP4": (40, 64, 36),
    "Q1_0": (41, 128, 18),
    "Q2_0": (42, 64, 18),
}

# name: (number in the file, format for struct); text and arrays have their own length
VALUE_TYPES: dict[str, tuple[int, str]] = {
    "u8": (0, "B"),
    "i8": (1, "b"),
    "u16": (2, "H"),
    "i16": (3, "h"),
    "u32": (4, "I"),
    "i32": (5, "i"),
    "f32": (6, "f"),
    "bool": (7, "?"),
    "str": (8, ""),
    "u64": (10, "Q"),
    "i64": (11, "q"),
    "f64": (12, "d"),
}
ARRAY = 9
"""The number of an array's type; the type of its items follows."""


@dataclass(frozen=True)
class Tensor:
    """One tensor's entry.

    Attributes:
        name: as ``blk.0.attn_q.weight``.
        shape: elements by dimension, the length of a row first.
        type: name of the type, a key of :data:`TENSOR_TYPES`.
        offset: where its bytes begin, relative to the start of the data.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int = 0

    @property
    def elements(self) -> int:
        """Number of values."""
        count = 1
        for length in self.shape:
            count *= length
        return count

    @property
    def bytes(self) -> int:
        """Size in the file, without padding."""
        _, per_block, block_bytes = TENSOR_TYPES[self.type]
        return self.elements // per_block * block_bytes


@dataclass(frozen=True)
class Skipped:
    """An array that was walked over.

    Attributes:
        count: how many items it has.
    """

    count: int


def header_bytes(
    metadata: Iterable[tuple[str, str, Any]],
    tensors: Sequence[tuple[str, Sequence[int], str]],
    alignment: int = DEFAULT_ALIGNMENT,
) -> tuple[bytes, tuple[Tensor, ...], int]:
    """A GGUF version 3 header, padded so that the data begins right after it.

    Args:
        metadata: key, type (as ``u32`` or ``[str]``) and value.
        tensors: name, shape (length of a row first) and type.
        alignment: tensors begin at multiples of it; must agree with ``general.alignment`` if that is given.

    Returns:
        The header, the tensors with their offsets, and the size of the data behind it.
    """
    pairs = list(metadata)
    placed = []
    offset = 0
    for name, shape, type_name in tensors:
        one = Tensor(name, tuple(shape), type_name, offset)
        placed.append(one)
        offset += padded(one.bytes, alignment)
    parts = [MAGIC, struct.pack("<IQQ", 3, len(placed), len(pairs))]
    for key, type_name, value in pairs:
        parts += [_text_bytes(key), _value_bytes(type_name, value)]
    for one in placed:
        parts.append(_text_bytes(one.name))
        parts.append(struct.pack(f"<I{len(one.shape)}Q", len(one.shape), *one.shape))
        parts.append(struct.pack("<IQ", TENSOR_TYPES[one.type][0], one.offset))
    header = b"".join(parts)
    return header.ljust(padded(len(header), alignment), b"\0"), tuple(placed), offset


def padded(size: int, alignment: int) -> int:
    """``size``, rounded up to a multiple of ``alignment``."""
    return -(-size // alignment) * alignment


def _text_bytes(text: str) -> bytes:
    encoded = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(encoded)) + encoded


def _value_bytes(type_name: str, value: Any) -> bytes:
    if type_name.startswith("["):
        item = type_name[1:-1]
        body = b"".join(_scalar_bytes(item, one) for one in value)
        return struct.pack("<IIQ", ARRAY, VALUE_TYPES[item][0], len(value)) + body
    return struct.pack("<I", VALUE_TYPES[type_name][0]) + _scalar_bytes(type_name, value)


def _scalar_bytes(type_name: str, value: Any) -> bytes:
    return _text_bytes(value) if type_name == "str" else struct.pack("<" + VALUE_TYPES[type_name][1], value)
