"""The plain frozen values that all parts of a measurement exchange.

Everything here is made once, at a boundary (:func:`Suite.from_dict` and its like refuse what is wrong with a sentence
that names the key), and trusted afterwards. Units are in the names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

TASKS = ("pp", "tg")
"""Prompt processing and text generation, as llama-bench itself abbreviates them; measured in this order."""

BENCHMARK_IDS = {"pp": "llm_speed:prompt_processing", "tg": "llm_speed:text_generation"}
"""The benchmark that each task feeds, named as Spare Cores names it."""


class CoreError(Exception):
    """Something that the user must hear of: one clear sentence, and how to mend it.

    Attributes:
        problem: what is wrong, one sentence.
        mend: what to do about it; may be empty.
    """

    def __init__(self, problem: str, mend: str = "") -> None:
        super().__init__(f"{problem} {mend}".strip())
        self.problem = problem
        self.mend = mend


class SettingsError(CoreError):
    """A suite, a model or a setting is not valid; ``key`` names the place, as ``scenarios.pp.512``."""

    def __init__(self, problem: str, mend: str = "", key: str = "") -> None:
        super().__init__(problem, mend)
        self.key = key


class Outcome(str, Enum):
    """How one scenario of one model ended. Exactly one of these, always."""

    OK = "ok"
    BELOW_THRESHOLD = "below_threshold"
    PREDICTED_SKIP = "predicted_skip"
    TIMEOUT = "timeout"
    OOM = "oom"
    CRASH = "crash"
    DOWNLOAD_FAILED = "download_failed"
    DOWNLOAD_TOO_SLOW = "download_too_slow"
    NO_DISK = "no_disk"
    GPU_FALLBACK = "gpu_fallback"
    NOT_REACHED = "not_reached"

    def __str__(self) -> str:
        return self.value


OUTCOME_MEANINGS: dict[Outcome, str] = {
    Outcome.OK: "measured",
    Outcome.BELOW_THRESHOLD: "a sample, or the time since it began, proved it slower than wanted",
    Outcome.PREDICTED_SKIP: "not run: at the best speed seen at shorter lengths it would miss its time limit",
    Outcome.TIMEOUT: "no progress within the time limit, so nothing is known of the speed",
    Outcome.OOM: "the memory does not suffice, by arithmetic or by the kernel's word",
    Outcome.CRASH: "llama-bench ended by itself, or printed what is no row",
    Outcome.DOWNLOAD_FAILED: "the model could not be had, or was not the file it should be",
    Outcome.DOWNLOAD_TOO_SLOW: "the model would not have arrived in the time that is worth waiting",
    Outcome.NO_DISK: "the disk does not hold the model",
    Outcome.GPU_FALLBACK: "a GPU was asked for, and the work ran on the CPU",
    Outcome.NOT_REACHED: "the session ended before this scenario's turn",
}


@dataclass(frozen=True, order=True)
class Scenario:
    """One length of one task.

    Attributes:
        task: ``pp`` or ``tg``.
        tokens: prompt length, or number of tokens generated.
        wanted_tokens_per_second: the speed below which a longer measurement is not worth its money.
    """

    task: str
    tokens: int
    wanted_tokens_per_second: float

    @property
    def name(self) -> str:
        """``pp512``, as llama-bench prints it."""
        return f"{self.task}{self.tokens}"


@dataclass(frozen=True)
class PolicySettings:
    """The numbers that the policy decides by; every one can be set in a suite.

    Attributes:
        min_samples: samples that every measured scenario gets.
        max_samples: samples after which a scenario ends although they don't agree.
        agreement: relative standard error of the mean at which samples agree.
        short_scenario_seconds: where ``max_samples`` take no longer than this altogether, all of them are taken.
        long_sample_seconds: where samples take longer than ``min_samples`` of this length altogether,
        long_agreement: they agree at this relative standard error.
        warmup_seconds: samples that begin within this time of a process's first one are discarded: processors that
            idled take a while to reach their speed.
        max_warmups: how many values are queued for that where the speed is known.
        load_seconds_per_gib: what a time limit allows for loading (4 s per GiB is 256 MiB/s, plus one second).
        limit_samples: a time limit is the load allowance plus this many samples at the wanted speed.
        miss_margin: a sample is too slow when it takes so many times what it may: single samples of good rows scatter.
        skip_margin: and one that was never taken is predicted to be when it would take so many times that.
        warmup_patience: and one that warms the machine up when it takes so many times that.
        probe_seconds: how long a model may take to load onto a GPU for the first time, at least: from a cloud's disk
            that is read for the first time.
        short_prompt_speedup: factor on the speed seen at 16 tokens when a 128-token prompt is predicted from it.
        gpu_no_skip_below_tokens: with a GPU in part use no prompt shorter than this is skipped by prediction.
        memory_fraction: a model file larger than this share of the memory is not tried.
        download_patience_seconds: how long the machine may idle at most for one model that is still on its way.
        patience_per_row_seconds: and how long for each scenario of it that is expected to be fast enough.
        noise_retries: how often a noisy measurement is repeated.
        repeat_seconds: only where its samples took no longer than this: longer ones have averaged the noise already.
        max_cv: coefficient of variation of the samples over which a measurement is noisy.
        max_steal: share of CPU time stolen by the hypervisor over which it is noisy.
        max_other_cores: CPU use of other processes, in cores, over which it is noisy.
        min_clock_ratio: lowest clock relative to the clock at its start under which it is noisy.
    """

    min_samples: int = 2
    max_samples: int = 5
    agreement: float = 0.01
    short_scenario_seconds: float = 5.0
    long_sample_seconds: float = 10.0
    long_agreement: float = 0.05
    warmup_seconds: float = 1.0
    max_warmups: int = 32
    load_seconds_per_gib: float = 4.0
    limit_samples: int = 5
    miss_margin: float = 1.2
    skip_margin: float = 1.04
    warmup_patience: float = 2.0
    probe_seconds: float = 120.0
    short_prompt_speedup: float = 2.0
    gpu_no_skip_below_tokens: int = 1024
    memory_fraction: float = 0.8
    download_patience_seconds: float = 1200.0
    patience_per_row_seconds: float = 400.0
    noise_retries: int = 1
    repeat_seconds: float = 2.0
    max_cv: float = 0.03
    max_steal: float = 0.01
    max_other_cores: float = 0.05
    min_clock_ratio: float = 0.9


@dataclass(frozen=True)
class Model:
    """One GGUF file to measure.

    Attributes:
        name: short name, e.g. ``SmolLM-135M``; unique in a suite.
        file: file name, e.g. ``SmolLM-135M.Q4_K_M.gguf``; what the benchmark's config calls the model.
        bytes: size of the file; 0 when unknown until it is there.
        sha256: checksum of the file in hex, or empty when unknown.
        url: where to download it, or empty.
        path: an absolute path on the target where it already lies, or empty.
        parameters: number of parameters, as llama-bench reports it (``model_n_params``); 0 when unknown.
        tensor_bytes: bytes of the tensors, as llama-bench reports it (``model_size``); 0 when unknown.
        layers: number of transformer blocks; 0 when unknown.
        shape: what :mod:`synthetic` needs to write a file of the same shapes, or ``None``.
    """

    name: str
    file: str
    bytes: int = 0
    sha256: str = ""
    url: str = ""
    path: str = ""
    parameters: int = 0
    tensor_bytes: int = 0
    layers: int = 0
    shape: Mapping[str, Any] | None = field(default=None, hash=False)

    @property
    def size_bytes(self) -> int:
        """Size of the file, or, while that is unknown, of its tensors: all but the header."""
        return self.bytes or self.tensor_bytes


@dataclass(frozen=True)
class Sample:
    """One timed repetition.

    Attributes:
        nanoseconds: wall time that llama-bench measured for it.
        process: number of the llama-bench process it came from, counted in the session's state folder.
        attempt: 1, or 2 for the repetition of a noisy measurement.
    """

    nanoseconds: int
    process: int = 0
    attempt: int = 1

    @property
    def seconds(self) -> float:
        """Wall time in seconds."""
        return self.nanoseconds / 1e9


@dataclass(frozen=True)
class Verdict:
    """The end of one scenario.

    Attributes:
        outcome: how it ended.
        reason: one sentence for a person; empty for an unremarkable ``ok``.
        noisy: the limits that the measurement broke (``cv``, ``steal``, ``other_processes``, ``clock``).
        evidence_seconds: how long a cut sample had been running: evidence for the outcome, never a score.
        attempt: the attempt whose samples count.
    """

    outcome: Outcome
    reason: str = ""
    noisy: tuple[str, ...] = ()
    evidence_seconds: float | None = None
    attempt: int = 1
