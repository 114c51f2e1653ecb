"""What a GGUF file consists of, without its weights: metadata that decides speed, and every tensor's type and shape.

A blueprint is drawn from a *shape*, a plain dictionary that travels as YAML and JSON. There are two kinds:

* a described one, as ``models.yml`` has it: architecture and dimensions; the tensors follow from llama.cpp's own rules
  (``src/models/*.cpp`` for names and shapes, ``src/llama-quant.cpp`` for the types of a Q4_K_M file);
* a listed one, as :func:`shape_of` makes it from the header of any real file: every tensor, every number.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .gguf_format import DEFAULT_ALIGNMENT, TENSOR_TYPES, VALUE_TYPES, Skipped
from .values import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .gguf import Header

FILE_TYPE_Q4_K_M = 15  # enum llama_ftype in llama.h; llama-bench shows it as "Q4_K - Medium"

# What a row that is no whole number of 256-value blocks gets instead (tensor_type_fallback in llama-quant.cpp).
_FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}

_DIMENSIONS = ("layers", "embedding", "feed_forward", "heads", "heads_kv", "vocabulary", "context")
_OPTIONAL = {
    "head": "length of one attention head; embedding / heads if not given",
    "rope_base": "base of the rotary embedding's frequencies",
    "rope_factors": "entries of the tensor rope_freqs (Llama 3); 0 for none",
    "rms_epsilon": "of the normalisation",
    "tied": "whether the output uses the token embedding's weights",
    "types": "types that differ from the rules of today's llama.cpp, by kind of tensor",
}
_KINDS = ("token_embd", "output", "attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output", "ffn_gate", "ffn_up")


@dataclass(frozen=True)
class Blueprint:
    """A GGUF file without its weights.

    Attributes:
        architecture: as ``llama``.
        metadata: key, GGUF type and value, in order.
        tensors: name, shape (length of a row first) and type, in order.
        alignment: tensors begin at multiples of it, bytes.
    """

    architecture: str
    metadata: tuple[tuple[str, str, Any], ...]
    tensors: tuple[tuple[str, tuple[int, ...], str], ...]
    alignment: int = DEFAULT_ALIGNMENT


def draw(shape: Mapping[str, Any]) -> Blueprint:
    """The blueprint that ``shape`` describes or lists.

    Raises:
        SettingsError: a key is missing or unknown, or a value is not valid; its ``key`` begins with ``shape.``.
    """
    if "tensors" in shape:
        return _from_list(shape)
    return _from_description(_Described.check(shape))


def shape_of(header: Header) -> dict[str, Any]:
    """The listed shape of a real file: plain data, fit for JSON.

    Everything is kept that llama.cpp builds its graph from. The tokenizer is replaced by the size of its vocabulary.
    """
    prefix = header.architecture + "."
    kept = [
        [key, header.value_types[key], list(value) if isinstance(value, tuple) else value]
        for key, value in header.metadata.items()
        if key.startswith(prefix) and not isinstance(value, Skipped)
    ]
    size_key = prefix + "vocab_size"
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if size_key not in header.metadata and tokens is not None:
        kept.append([size_key, "u32", tokens.count if isinstance(tokens, Skipped) else len(tokens)])
    general = ("general.file_type", "general.quantization_version", "general.alignment")
    kept += [[key, header.value_types[key], header.metadata[key]] for key in general if key in header.metadata]
    return {
        "architecture": header.architecture,
        "metadata": kept,
        "tensors": [[one.name, list(one.shape), one.type] for one in header.tensors],
    }


def _from_list(shape: Mapping[str, Any]) -> Blueprint:
    architecture = shape.get("architecture")
    if not isinstance(architecture, str) or not architecture:
        raise SettingsError("The shape has no architecture.", "Make it anew from the model.", "shape.architecture")
    try:
        metadata = tuple((str(key), str(kind), value) for key, kind, value in shape.get("metadata", ()))
        tensors = tuple((str(name), tuple(map(int, dims)), str(kind)) for name, dims, kind in shape["tensors"])
    except (TypeError, ValueError):
        raise SettingsError("The shape is damaged.", "Make it anew from the model.", "shape.tensors") from None
    for name, _, kind in tensors:
        if kind not in TENSOR_TYPES:
            raise SettingsError(f"The tensor {name} has the unknown type '{kind}'.", "", "shape.tensors")
    for key, kind, _ in metadata:
        if kind.strip("[]") not in VALUE_TYPES:
            raise SettingsError(f"The value {key} has the unknown type '{kind}'.", "", "shape.metadata")
    alignment = {key: value for key, _, value in metadata}.get("general.alignment", DEFAULT_ALIGNMENT)
    head = [("general.architecture", "str", architecture), ("tokenizer.ggml.model", "str", "none")]
    return Blueprint(architecture, (*head, *metadata), tensors, int(alignment))


@dataclass(frozen=True)
class _Described:
    """A described shape, checked. The fields are the keys in ``models.yml``."""

    architecture: str
    layers: int
    embedding: int
    feed_forward: int
    heads: int
    heads_kv: int
    vocabulary: int
    context: int
    head: int
    rope_base: float
    rope_factors: int
    rms_epsilon: float
    tied: bool
    types: Mapping[str, str]

    @classmethod
    def check(cls, shape: Mapping[str, Any]) -> _Described:
        known = ("architecture", *_DIMENSIONS, *_OPTIONAL)
        for key in shape:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                mend = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(known)}."
                raise SettingsError(f"'{key}' is not a known key of a shape.", mend, f"shape.{key}")
        if shape.get("architecture") not in _ARCHITECTURES:
            raise SettingsError(
                f"{shape.get('architecture')!r} is not an architecture that can be described.",
                f"Known: {', '.join(_ARCHITECTURES)}. Or give a GGUF file of it.",
                "shape.architecture",
            )
        sizes = {key: _count(shape, key) for key in _DIMENSIONS}
        if sizes["heads"] % sizes["heads_kv"]:
            raise SettingsError("The heads can't be divided among heads_kv.", "Correct one.", "shape.heads_kv")
        types = shape.get("types", {})
        for kind, name in types.items() if isinstance(types, Mapping) else [("types", "")]:
            if kind not in _KINDS or name not in TENSOR_TYPES:
                raise SettingsError(f"'{kind}: {name}' is not a tensor and its type.", "", f"shape.types.{kind}")
        return cls(
            architecture=shape["architecture"],
            head=_count(shape, "head", sizes["embedding"] // sizes["heads"]),
            rope_base=_real(shape, "rope_base", 10000.0),
            rope_factors=_count(shape, "rope_factors", 0),
            rms_epsilon=_real(shape, "rms_epsilon", 1e-5),
            tied=bool(shape.get("tied", False)),
            types=dict(types),
            **sizes,
        )


def _count(shape: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = shape.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < (1 if default is None else 0):
        raise SettingsError(f"The shape's {key} is {value!r}, not a whole number above 0.", "Give one.", f"shape.{key}")
    return value


def _real(shape: Mapping[str, Any], key: str, default: float) -> float:
    value = shape.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e12:
        raise SettingsError(f"The shape's {key} is {value!r}, not a number above 0.", "Give one.", f"shape.{key}")
    return float(value)


def _from_description(shape: _Described) -> Blueprint:
    name = shape.architecture
    metadata = [
        ("general.architecture", "str", name),
        ("tokenizer.ggml.model", "str", "none"),
        (f"{name}.context_length", "u32", shape.context),
        (f"{name}.embedding_length", "u32", shape.embedding),
        (f"{name}.block_count", "u32", shape.layers),
        (f"{name}.feed_forward_length", "u32", shape.feed_forward),
        (f"{name}.attention.head_count", "u32", shape.heads),
        (f"{name}.attention.head_count_kv", "u32", shape.heads_kv),
        (f"{name}.attention.key_length", "u32", shape.head),
        (f"{name}.attention.value_length", "u32", shape.head),
        (f"{name}.attention.layer_norm_rms_epsilon", "f32", shape.rms_epsilon),
        (f"{name}.rope.dimension_count", "u32", shape.head),
        (f"{name}.rope.freq_base", "f32", shape.rope_base),
        (f"{name}.vocab_size", "u32", shape.vocabulary),
        ("general.file_type", "u32", FILE_TYPE_Q4_K_M),
        ("general.quantization_version", "u32", 2),
    ]
    if name == "phi3":
        # As convert_hf_to_gguf.py writes them for Phi-4: full attention, no stretched context.
        metadata.append((f"{name}.rope.scaling.original_context_length", "u32", shape.context))
        metadata.append((f"{name}.attention.sliding_window", "u32", 0))
    return Blueprint(name, tuple(metadata), tuple(_tensors(shape)))


def _tensors(shape: _Described) -> Iterator[tuple[str, tuple[int, ...], str]]:
    width = shape.embedding

    def matrix(name: str, rows: int, columns: int, kind: str, layer: int = 0) -> tuple[str, tuple[int, ...], str]:
        return f"{name}.weight", (rows, columns), _type_of(shape, kind, layer, rows)

    yield matrix("token_embd", width, shape.vocabulary, "token_embd")
    yield "output_norm.weight", (width,), "F32"
    if not shape.tied:
        yield matrix("output", width, shape.vocabulary, "output")
    if shape.rope_factors:
        yield "rope_freqs.weight", (shape.rope_factors,), "F32"
    queries, keys = shape.heads * shape.head, shape.heads_kv * shape.head
    fused, biased = _ARCHITECTURES[shape.architecture]
    for i in range(shape.layers):
        yield f"blk.{i}.attn_norm.weight", (width,), "F32"
        if fused:
            yield matrix(f"blk.{i}.attn_qkv", width, queries + 2 * keys, "attn_qkv", i)
            # up and gate are one tensor too
            yield matrix(f"blk.{i}.ffn_up", width, 2 * shape.feed_forward, "ffn_up", i)
        else:
            for part, columns in (("q", queries), ("k", keys), ("v", keys)):
                yield matrix(f"blk.{i}.attn_{part}", width, columns, f"attn_{part}", i)
                if biased:
                    yield f"blk.{i}.attn_{part}.bias", (columns,), "F32"
            yield matrix(f"blk.{i}.ffn_gate", width, shape.feed_forward, "ffn_gate", i)
            yield matrix(f"blk.{i}.ffn_up", width, shape.feed_forward, "ffn_up", i)
        yield matrix(f"blk.{i}.attn_output", queries, width, "attn_output", i)
        yield f"blk.{i}.ffn_norm.weight", (width,), "F32"
        yield matrix(f"blk.{i}.ffn_down", shape.feed_forward, width, "ffn_down", i)


# Whether query, key and value are one tensor; whether they have biases (load_arch_tensors in llama.cpp's src/models).
_ARCHITECTURES = {"llama": (False, False), "qwen2": (False, True), "gemma": (False, False), "phi3": (True, False)}


def _type_of(shape: _Described, kind: str, layer: int, row: int) -> str:
    """The type that a Q4_K_M file gives a tensor: ``llama_tensor_get_type_impl`` in llama-quant.cpp."""
    usual = {"token_embd": "Q6_K" if shape.tied else "Q4_K", "output": "Q6_K", "attn_qkv": "Q5_K"}.get(kind, "Q4_K")
    name = shape.types.get(kind, usual)
    if kind in ("attn_v", "ffn_down") and _more_bits(layer, shape.layers):
        name = "Q6_K"
    return _FALLBACK.get(name, name) if row % TENSOR_TYPES[name][1] else name


def _more_bits(layer: int, layers: int) -> bool:
    """``use_more_bits`` in llama-quant.cpp: the first and last eighth, and every third layer between."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
