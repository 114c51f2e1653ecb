"""Where a model's layers go, and the proof that they went there: one probe per model, before anything is measured.

Without a GPU there is nothing to prove and no probe. With one, the number of layers comes from memory arithmetic, and a
short verbose run shows where the weights really were; a run that asked for the GPU and was served by the CPU is
``gpu_fallback``, and no normal score is ever taken from it.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from . import command, memory, offload, policy, synthetic
from .endings import classify_exit
from .events import Exited, ProgressLine, RowLine
from .measure import Place
from .noise import process_tree
from .values import Outcome, Verdict

if TYPE_CHECKING:
    from .events import Process
    from .gguf import Header
    from .host import HostFacts
    from .measure import Bench
    from .programs import Run
    from .values import Model


def place(
    bench: Bench, model: Model, path: str, header: Header, facts: HostFacts, device: str, run: Run
) -> Place | Verdict:
    """Decide where a model goes and prove it.

    Args:
        bench: how llama-bench is started, and by which settings.
        model: the model.
        path: its file on this machine.
        header: what the file says of itself.
        facts: the machine.
        device: ``auto``, ``cpu`` or ``gpu``.
        run: runs ``nvidia-smi``.

    Returns:
        The place, or the verdict that ends every scenario of the model.
    """
    if synthetic.is_sparse(header):
        return Verdict(Outcome.DOWNLOAD_FAILED, f"{path} has no body: it was written to check its header only")
    gpus = facts.gpus if device != "cpu" else ()
    layers = _layers(header, bench, [gpu.memory_free_bytes for gpu in gpus])
    if not gpus or layers == 0:
        return Place(path, 0, _offload(0, offload.prove(0, None, None, gpus)))
    log, held, failed = probe(bench, model, path, layers, run)
    if failed is not None:
        return failed
    proof = offload.prove(layers, log, held, gpus, header.tensor_bytes)
    if proof.outcome == "fallback":
        return Verdict(Outcome.GPU_FALLBACK, proof.reason)
    return Place(path, layers, _offload(layers, proof, held))


def _layers(header: Header, bench: Bench, free_bytes: list[int]) -> int:
    """The number of layers for ``-ngl``; 0 without GPUs."""
    if not free_bytes:
        return 0
    by_layer = [0] * header.layers
    output = embedding = 0
    for tensor in header.tensors:
        if tensor.name.startswith("blk."):
            by_layer[int(tensor.name.split(".")[1])] += tensor.bytes
        elif tensor.name == "token_embd.weight":
            embedding = tensor.bytes
        else:
            output += tensor.bytes
    if not any(tensor.name == "output.weight" for tensor in header.tensors):
        output += embedding
    context = max(scenario.tokens for scenario in bench.suite.scenarios)
    shape = next((tensor.shape for tensor in header.tensors if tensor.name == "token_embd.weight"), (0, 0))
    return memory.gpu_layers(
        layer_bytes=by_layer,
        output_bytes=output,
        kv_bytes_per_token=header.kv_bytes_per_token,
        context_tokens=context,
        compute_bytes=memory.compute_buffer_bytes(shape[1], shape[0], context, bench.suite.flags.ubatch),
        gpus_free_bytes=free_bytes,
    )


def probe(
    bench: Bench, model: Model, path: str, layers: int, run: Run
) -> tuple[offload.LoadLog | None, int | None, Verdict | None]:
    """Load the model once with the log on; what the log says, the GPU memory held, and what went wrong."""
    argv = command.arguments(
        bench.binary,
        path,
        "pp",
        (1,),
        repetitions=1,
        warmup=False,
        threads=bench.threads,
        cpu_mask=bench.cpu_mask,
        gpu_layers=layers,
        flags=asdict(bench.suite.flags),
        verbose=True,
    )
    settings = bench.suite.policy
    limit = max(settings.probe_seconds, policy.time_limit_seconds(bench.suite.scenarios[0], model, settings))
    held: int | None = None
    with bench.start(argv) as process:
        for event in process.events():
            bench.check()
            if isinstance(event, (ProgressLine, RowLine)):
                found = offload.process_gpu_memory(_pids(process), run)
                held = found if held is None else max(held, found or 0)
            if isinstance(event, RowLine):
                break
            if isinstance(event, Exited):
                ended = classify_exit(
                    event.returncode, event.signal, process.log_tail, oom_kills=event.oom_kills, killed=event.killed
                )
                return None, held, Verdict(*ended)
            if getattr(event, "elapsed", 0.0) > limit:
                return None, held, Verdict(Outcome.TIMEOUT, f"the model did not load within {limit:.0f} s")
        log = offload.parse_load_log(process.log_head) if "-v" in bench.binary.flags else None
    return log, held, None


def _pids(process: Process) -> tuple[int, ...]:
    pid = getattr(process, "pid", None)  # a recorded run has none
    return process_tree(pid) if pid else ()


def _offload(asked: int, proof: offload.Proof, held: int | None = None) -> dict[str, Any]:
    """The proof as the journal keeps it."""
    return {
        "asked": asked,
        "layers": proof.layers,
        "layers_total": proof.layers_total,
        "device": proof.device,
        "gpu_memory_bytes": held,
        "proof": proof.proof,
    }
