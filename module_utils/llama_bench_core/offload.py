"""Proof that the GPU did the work: llama.cpp's load log, and the GPU memory of the process.

A row of llama-bench proves nothing: ``n_gpu_layers`` repeats what was asked for and ``backends`` lists what was loaded,
so a CUDA build without a usable device prints ``CUDA`` and 99 layers while all runs on the CPU. Nor does ``offloaded
33/33 layers`` in older logs, which counts the request too. What can't lie is where the weights were put: the sizes of
the model buffers, which this module reads from ``llama-bench -v``, 2023's wording to today's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from . import programs
from .gpu import ask_driver
from .tree import whole_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .gpu import GPU

_MIB = 1024 * 1024
_HOST_PID_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO of the kernel (include/linux/proc_ns.h): the namespace of the machine itself."""

_NEW_MODEL = re.compile(r"llama_model_loader: loaded meta data")
_NEW_CONTEXT = re.compile(r"llama_new_context_with_model: n_ctx |llama_context(?:_base)?: constructing ")
_OFFLOADED = re.compile(r"offloaded (\d+)/(\d+) layers")
_ASSIGNED = re.compile(r"layer\s+(\d+) assigned to device ([^\s,]+)")
_BUFFER = re.compile(r"([^\s:]+)\s+(?:(model|KV|RS|compute) )?buffer size\s*=\s*([\d.]+) MiB")
_USING = re.compile(r"using device (\S+) \((.*?)\)")
_FOUND = re.compile(r"^\s*Device (\d+): (.+?), compute capability")
_BACKEND = re.compile(r"load_backend: loaded (\S+) backend")
# Sentences that say why no GPU is used; the rest of the line is the reason.
_NOTE = re.compile(
    r"(failed to initialize CUDA: .*|no CUDA devices found.*|no usable GPU found.*"
    r"|not compiled with GPU offload support.*|compiled without (?:GPU|CUDA) support.*|failed to load backend .*)"
)


@dataclass(frozen=True)
class LoadLog:
    """What llama.cpp said while it loaded a model; of several loads and contexts the last.

    Attributes:
        layers_offloaded: layers on GPUs as *claimed* by "offloaded a/b"; ``None`` when it says nothing (no GPU build).
        layers_total: layers of the model, the output counted as one.
        layer_devices: device of each layer, where the log lists them (``-v``).
        model: bytes of weights by buffer (``CUDA0``, ``CPU_Mapped``, ...); mapped ones are a range of the file.
        kv: bytes of KV cache by buffer.
        compute: bytes of compute buffer by buffer.
        devices: names of the GPUs found, by device (``CUDA0`` to ``NVIDIA L4``).
        backends: backends loaded at run time, in order.
        notes: what it said about not using a GPU.
    """

    layers_offloaded: int | None = None
    layers_total: int | None = None
    layer_devices: Mapping[int, str] = field(default_factory=dict)
    model: Mapping[str, int] = field(default_factory=dict)
    kv: Mapping[str, int] = field(default_factory=dict)
    compute: Mapping[str, int] = field(default_factory=dict)
    devices: Mapping[str, str] = field(default_factory=dict)
    backends: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def gpu_model(self) -> dict[str, int]:
        """Bytes of weights by GPU."""
        return {name: size for name, size in self.model.items() if size and is_gpu(name)}

    @property
    def layers_really_offloaded(self) -> int:
        """Layers whose weights are on a GPU: none without a model buffer there, whatever else the log claims."""
        if not self.gpu_model:
            return 0
        if self.layer_devices:
            return sum(is_gpu(device) for device in self.layer_devices.values())
        return self.layers_offloaded or 0


@dataclass(frozen=True)
class Proof:
    """Where the work ran.

    Attributes:
        outcome: ``gpu`` (all layers), ``partial``, ``cpu`` (as asked), or ``fallback`` (a GPU was asked for in vain).
        layers: layers on GPUs; -1 when a GPU was used but no log tells how far.
        layers_total: layers of the model, the output counted as one; ``None`` when unknown.
        device: the devices that hold the weights, e.g. ``CPU``, ``CUDA0``, ``CUDA0,CUDA1``.
        reason: one sentence for a person; empty where nothing is remarkable.
        proof: what it rests on: ``log``, ``memory`` or ``none``.
    """

    outcome: str
    layers: int
    layers_total: int | None
    device: str
    reason: str
    proof: str


def is_gpu(buffer: str) -> bool:
    """Whether a buffer lies in a GPU's own memory; ``CUDA_Host`` is pinned memory of the machine."""
    return not (buffer.startswith(("CPU", "AMX", "BLAS", "ACCEL")) or buffer.endswith("_Host"))


def parse_load_log(text: str) -> LoadLog:
    """Read the standard error of ``llama-bench -v``; lines may carry time stamps before them."""
    reader = _Reader()
    for line in text.splitlines():
        reader.read(line)
    return reader.log()


class _Reader:
    """What was read so far; a new model or context forgets what was said of the one before."""

    def __init__(self) -> None:
        self.claim: tuple[int, int] | None = None
        self.layers: dict[int, str] = {}
        self.sizes: dict[str, dict[str, int]] = {"model": {}, "KV": {}, "compute": {}}
        self.devices: dict[str, str] = {}
        self.backends: dict[str, None] = {}
        self.notes: list[str] = []

    def read(self, line: str) -> None:
        if _NEW_MODEL.search(line):
            self.claim = None
            self.layers.clear()
            self.sizes["model"].clear()
        elif _NEW_CONTEXT.search(line):
            self.sizes["KV"].clear()
            self.sizes["compute"].clear()
        elif match := _ASSIGNED.search(line):
            self.layers[int(match[1])] = match[2]
        elif match := _OFFLOADED.search(line):
            self.claim = int(match[1]), int(match[2])
        elif match := _BUFFER.search(line):
            self._buffer(match[1], match[2] or ("model" if "load_tensors" in line else ""), float(match[3]))
        else:
            self._about_devices(line)

    def _buffer(self, name: str, kind: str, mebibytes: float) -> None:
        of_kind = self.sizes.get("KV" if kind == "RS" else kind)
        if of_kind is not None:
            of_kind[name] = of_kind.get(name, 0) + round(mebibytes * _MIB)

    def _about_devices(self, line: str) -> None:
        if match := _USING.search(line):
            self.devices[match[1]] = match[2]
        elif match := _FOUND.search(line):
            self.devices.setdefault(f"CUDA{match[1]}", match[2])
        elif match := _BACKEND.search(line):
            self.backends[match[1]] = None
        elif match := _NOTE.search(line):
            self.notes.append(match[1].strip())

    def log(self) -> LoadLog:
        total = max(self.layers) + 1 if self.layers else None
        return LoadLog(
            layers_offloaded=self.claim[0] if self.claim else None,
            layers_total=self.claim[1] if self.claim else total,
            layer_devices=self.layers,
            model=self.sizes["model"],
            kv=self.sizes["KV"],
            compute=self.sizes["compute"],
            devices=self.devices,
            backends=tuple(self.backends),
            notes=tuple(self.notes),
        )


def prove(
    asked: int,
    log: LoadLog | None,
    gpu_memory_bytes: int | None,
    gpus: Sequence[GPU],
    model_bytes: int = 0,
) -> Proof:
    """Say where the work ran.

    Args:
        asked: what ``-ngl`` was: 0 for none, -1 for all, else a number of layers.
        log: the load log, ``None`` when there is none.
        gpu_memory_bytes: GPU memory of the process, ``None`` when it can't be told; see :func:`process_gpu_memory`.
        gpus: the machine's GPUs.
        model_bytes: size of the weights. Without a log, that much GPU memory must be in use, as a CUDA context alone
            takes hundreds of MiB and would look like an offload.
    """
    total = log.layers_total if log else None
    if asked == 0:
        helped = log is not None and any(is_gpu(name) for name in log.compute)
        return Proof(
            "cpu", 0, total, "CPU", "the GPU still computed long prompts" if helped else "", "log" if log else "none"
        )
    expected = bool(gpus) or bool(log and (log.notes or log.devices or "CUDA" in log.backends))
    if not expected:
        return Proof("cpu", 0, total, "CPU", "", "log" if log else "none")
    if log is None:
        return _prove_by_memory(asked, gpu_memory_bytes, gpus, model_bytes)
    layers = log.layers_really_offloaded
    if layers == 0:
        return Proof("fallback", 0, total, "CPU", _why(log), "log")
    if gpu_memory_bytes == 0:
        reason = f"the log puts {layers} layers on a GPU, but the process holds no GPU memory"
        return Proof("fallback", 0, total, "CPU", reason, "memory")
    device = ",".join(sorted(log.gpu_model))
    if total is None or layers >= total:
        return Proof("gpu", layers, total, device, "", "log")
    return Proof("partial", layers, total, device, f"{layers} of {total} layers are on the GPU", "log")


def _prove_by_memory(asked: int, held: int | None, gpus: Sequence[GPU], model_bytes: int) -> Proof:
    device = f"CUDA{gpus[0].index}" if len(gpus) == 1 else "CUDA"
    wanted = max(model_bytes, 1) if asked < 0 else 1
    if held is not None and held >= wanted:
        outcome = "gpu" if asked < 0 else "partial"
        return Proof(outcome, -1, None, device, "shown by the process's GPU memory alone", "memory")
    what = "nothing shows that it did" if held is None else f"the process holds {held // _MIB} MiB of GPU memory"
    return Proof("fallback", 0, None, "CPU", f"a GPU should have done the work, but {what}", "none")


def _why(log: LoadLog) -> str:
    if log.notes:
        return f"no layer is on a GPU: {log.notes[0]}"
    if log.layers_offloaded:
        return f"the log claims {log.layers_offloaded} layers on a GPU, but no weights lie there"
    return "no layer is on a GPU, and the log does not say why"


def process_gpu_memory(
    pids: Iterable[int], run: programs.Run = programs.run, sees_host_pids: bool | None = None
) -> int | None:
    """GPU memory that some processes hold together, in bytes, from ``nvidia-smi``.

    Args:
        pids: the process tree.
        run: runs the program.
        sees_host_pids: whether our process numbers are the machine's; looked up when not given. In a container they
            are not, while the driver knows only the machine's, so finding none of ours there tells nothing.

    Returns:
        Bytes, 0 when the driver lists none of the processes, ``None`` when it can't be told.
    """
    output = ask_driver(run, "--query-compute-apps=pid,used_memory")
    if output is None:
        return None
    wanted = set(pids)
    held: int | None = None
    for line in output.splitlines():
        pid, _, used = line.partition(",")
        mebibytes = whole_number(used.strip())
        if whole_number(pid.strip()) in wanted:
            if mebibytes is None:
                return None
            held = (held or 0) + mebibytes * _MIB
    if held is not None:
        return held
    return 0 if (_sees_host_pids() if sees_host_pids is None else sees_host_pids) else None


def _sees_host_pids() -> bool:
    try:
        return str(Path("/proc/self/ns/pid").readlink()) == _HOST_PID_NAMESPACE
    except OSError:
        return False
