"""Synthetic weights: a GGUF file of a real model's exact shapes and quantisation types, filled with random blocks.

How fast a model runs depends on shapes and types, not on what the weights say, so nothing needs to be downloaded. A
file says that it is synthetic in its own header, and what is measured with it is marked as such.

The body is made of one random buffer per type, written again and again:

* A buffer has about 1 MiB. It need not be larger than the processor's caches, because what is measured is read from
  the page cache, where every repetition lies in memory of its own; and a source that stays in a core's own cache is
  what makes writing as cheap as ``dd if=/dev/zero``. It is larger than the records that file systems compress (128 KiB
  as a rule), and an odd number of blocks, so that repetitions fall at ever new offsets within a page and are not
  folded by storage that looks for equal pages.
* The bits are random, but scales are set to those of real weights, which have standard deviations of some hundredths:
  activations stay finite in half precision, and no scale is a denormal number. Normalisation weights are one.
* The same seed gives the same file, byte by byte, on every machine.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import blueprint, gguf_format
from .delivery import DiskFullError
from .values import CoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .gguf import Header
    from .values import Model

MARK = "benchctl.synthetic"
SPARSE_MARK = "benchctl.synthetic.sparse"
FOLDER = "synthetic"
"""Synthetic models lie in a folder of this name beside the real ones, so that one can't be taken for the other."""

_BUFFER_BYTES = 1 << 20
_ONE = b"\x00\x00\x80\x3f"  # 1.0 as F32
_D = b"\x00\x08"  # 2**-13 as F16: the smallest scale that is no denormal has 2**-14
_D16 = b"\x00\x18"  # 2**-9

# Bytes to set at an offset in each block (layouts: ggml-common.h). "d" is a block's scale, "m" its minimum; with
# random quants they give values of mean zero and a standard deviation between 0.01 and 0.2.
_SCALES: dict[str, tuple[tuple[int, bytes], ...]] = {
    "Q4_0": ((0, _D16),),
    "Q4_1": ((0, _D16), (2, b"\x80\xa3")),  # m = -7.5 d
    "Q5_0": ((0, _D16),),
    "Q5_1": ((0, _D16), (2, b"\xc0\xa7")),  # m = -15.5 d
    "Q8_0": ((0, _D),),
    "Q2_K": ((80, _D16), (82, b"\x00\x1a")),  # m = 1.5 d
    "Q3_K": ((108, _D),),
    "Q4_K": ((0, _D), (2, b"\x80\x13")),  # m = 7.5 d
    "Q5_K": ((0, _D), (2, b"\xc0\x17")),  # m = 15.5 d
    "Q6_K": ((208, _D),),
    "IQ2_XXS": ((0, _D),),
    "IQ2_XS": ((0, _D),),
    "IQ2_S": ((0, _D),),
    "IQ3_XXS": ((0, _D),),
    "IQ3_S": ((0, _D),),
    "IQ1_S": ((0, _D),),
    "IQ1_M": ((49, b"\x05"), (51, b"\x05"), (53, b"\x85"), (55, b"\x05")),  # d = 2**-13, four bits in each
    "IQ4_NL": ((0, _D),),
    "IQ4_XS": ((0, _D),),
    "TQ1_0": ((52, _D16),),
    "TQ2_0": ((64, _D16),),
    "MXFP4": ((0, b"\x78"),),  # 2**(120 - 127)
    "NVFP4": ((0, b"\x08\x08\x08\x08"),),  # 2**-6, the smallest normal E4M3
    "Q1_0": ((0, _D16),),
    "Q2_0": ((0, _D16),),
}
# Plain numbers are set to about +-0.01 by the byte that holds sign and exponent: (bytes per number, that byte).
_FLOATS = {"F32": (4, b"\x3c", b"\xbc"), "F16": (2, b"\x21", b"\xa1"), "BF16": (2, b"\x3c", b"\xbc")}


class SyntheticError(CoreError):
    """Synthetic weights can't be written."""


def is_synthetic(header: Header) -> bool:
    """Whether the file says of itself that its weights are synthetic."""
    return bool(header.metadata.get(MARK, False))


def is_sparse(header: Header) -> bool:
    """Whether the file has no body on the disk: good for checking a header, never for a measurement."""
    return bool(header.metadata.get(SPARSE_MARK, False))


def shape_of(header: Header) -> dict[str, Any]:
    """The shape of a real file, from which :func:`write` makes a synthetic one."""
    return blueprint.shape_of(header)


def header_of(
    model: Model, *, sparse: bool = False, seed: int = 0
) -> tuple[bytes, tuple[gguf_format.Tensor, ...], int]:
    """Header, tensors and size of the body of ``model``'s synthetic file.

    Raises:
        SyntheticError: nothing is known of the model's shape.
        SettingsError: its shape is not valid.
    """
    if model.shape is None:
        raise SyntheticError(
            f"The shape of {model.name} is not known, so no synthetic weights can be made.",
            "Give a GGUF file of it, or measure real weights.",
        )
    plan = blueprint.draw(model.shape)
    marks = [
        ("general.name", "str", f"{model.name} (synthetic)"),
        (MARK, "bool", True),
        ("benchctl.synthetic.seed", "u64", seed),
    ]
    if sparse:
        marks.append((SPARSE_MARK, "bool", True))
    return gguf_format.header_bytes((*plan.metadata, *marks), plan.tensors, plan.alignment)


def file_bytes(model: Model) -> int:
    """Size of ``model``'s synthetic file; errors as :func:`header_of`."""
    header, _, body = header_of(model)
    return len(header) + body


def present(model: Model, path: str | os.PathLike[str], *, seed: int = 0) -> bool:
    """Whether ``path`` is this model's whole synthetic file already, with a body that can be measured."""
    header, _, body = header_of(model, seed=seed)
    try:
        with Path(path).open("rb") as stream:
            return os.fstat(stream.fileno()).st_size == len(header) + body and stream.read(len(header)) == header
    except OSError:
        return False


def write(
    model: Model,
    path: str | os.PathLike[str],
    progress: Callable[[int], None] | None = None,
    stop: Callable[[], bool] | None = None,
    *,
    sparse: bool = False,
    seed: int = 0,
) -> None:
    """Write ``model``'s synthetic file to ``path``; beside it first, renamed when it is whole and on the disk.

    When it returns early (``stop``) or raises, neither the file nor a part of it is left.

    Args:
        model: what to imitate; its ``shape`` says how.
        path: where to.
        progress: called with the bytes written so far, at least every MiB.
        stop: asked as often; when it says true, writing ends.
        sparse: leave the body a hole. For checking headers, never for a measurement.
        seed: same seed, same file.

    Raises:
        SyntheticError: the model's shape is not known, or the file can't be written.
        SettingsError: its shape is not valid.
        DiskFullError: the disk does not hold it.
    """
    target = Path(path)
    header, tensors, body = header_of(model, sparse=sparse, seed=seed)
    # Not ".part": that is what the downloader goes on with, and it must never go on with this.
    part = target.with_name(target.name + ".synthetic.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not sparse:
            _check_space(target, len(header) + body)
        with contextlib.ExitStack() as undo:
            undo.callback(_remove, part)
            with part.open("wb", buffering=0) as stream:
                writer = _Writer(stream.fileno(), progress, stop)
                writer.put(memoryview(header))
                if sparse:
                    os.ftruncate(stream.fileno(), len(header) + body)
                else:
                    _write_body(writer, tensors, len(header), len(header) + body, seed)
                if writer.stopped:
                    return
                os.fsync(stream.fileno())
            part.replace(target)
            undo.pop_all()
        _sync_folder(target.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DiskFullError(
                f"The disk of {target.parent} does not hold the {len(header) + body} bytes of {target.name}.",
                "Free some space, or choose another folder for the models.",
            ) from error
        raise SyntheticError(f"{target} can't be written: {error.strerror}.", "Choose another folder.") from error


class _Writer:
    """Writes all of what it is given, counts it, and asks whether to go on."""

    def __init__(self, fd: int, progress: Callable[[int], None] | None, stop: Callable[[], bool] | None) -> None:
        self._fd = fd
        self._progress = progress
        self._stop = stop
        self.done = 0
        self.stopped = False

    def put(self, data: memoryview) -> None:
        while data and not self.stopped:
            count = os.write(self._fd, data)
            self.done += count
            data = data[count:]
            if self._progress:
                self._progress(self.done)
            if self._stop and self._stop():
                self.stopped = True


def _write_body(
    writer: _Writer, tensors: tuple[gguf_format.Tensor, ...], data_offset: int, end: int, seed: int
) -> None:
    buffers = _Buffers(seed)
    for one in (*tensors, None):
        gap = (data_offset + one.offset if one else end) - writer.done
        writer.put(memoryview(bytes(gap)))
        if one is None:
            return
        left = one.bytes
        while left and not writer.stopped:
            piece = buffers.next_piece(one, left)
            left -= len(piece)
            writer.put(piece)
        if writer.stopped:
            return


class _Buffers:
    """A stream of valid blocks per type: each tensor goes on where the last of its type ended."""

    def __init__(self, seed: int) -> None:
        # An extendable hash is the fastest source of bytes in the standard library that a seed determines.
        self._random = hashlib.shake_128(b"benchctl synthetic weights %d" % seed).digest(_BUFFER_BYTES)
        self._buffers: dict[str, memoryview] = {}
        self._at: dict[str, int] = {}

    def next_piece(self, tensor: gguf_format.Tensor, most: int) -> memoryview:
        norm = tensor.type == "F32" and len(tensor.shape) == 1 and tensor.name.endswith(".weight")
        key = "norm" if norm else tensor.type
        if key not in self._buffers:
            self._buffers[key] = memoryview(_ONE * 65536 if norm else _blocks(key, self._random))
        buffer = self._buffers[key]
        begin = self._at.get(key, 0)
        piece = buffer[begin : begin + most]
        self._at[key] = (begin + len(piece)) % len(buffer)
        return piece


def _blocks(type_name: str, random: bytes) -> bytes:
    """An odd number of valid blocks of one type; zeros for types that hold no weights."""
    _, _, size = gguf_format.TENSOR_TYPES[type_name]
    count = (len(random) // size - 1) | 1
    blocks = bytearray(random[: count * size])
    if type_name in _FLOATS:
        width, plus, minus = _FLOATS[type_name]
        blocks[width - 1 :: width] = (plus + minus) * (count // 2) + plus * (count % 2)
    elif type_name in _SCALES:
        for offset, value in _SCALES[type_name]:
            for index in range(len(value)):
                blocks[offset + index :: size] = value[index : index + 1] * count
    else:
        blocks = bytearray(count * size)
    return bytes(blocks)


def _check_space(target: Path, needed: int) -> None:
    disk = os.statvfs(target.parent)
    # What an old file of this name frees is not counted: it stays until the new one is whole.
    if disk.f_bavail * disk.f_frsize < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
