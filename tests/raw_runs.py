"""Writes raw results into a lake, in the very formats of a real run, around rows of a real llama-bench."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchctl import lake

ROWS = Path(__file__).parent / "cases" / "lake" / "gemma-3-270m.jsonl"
MODEL = "gemma-3-270m"
FILE = "gemma-3-270m-q4_k_m.gguf"
SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
STARTED = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)

HOST: dict[str, Any] = {
    "cpu_model": "AMD EPYC 7763 64-Core Processor",
    "architecture": "x86_64",
    "logical_cpus": 4,
    "physical_cores": 2,
    "memory_bytes": 8 * 1024**3,
    "hypervisor": "kvm",
    "machine": "QEMU Standard PC",
    "clock_mhz": 2450.0,
    "clock_max_mhz": None,
    "gpus": [],
}


def rows_by_scenario() -> dict[tuple[str, int], list[str]]:
    """The recorded rows, one sample each, by task and tokens."""
    found: dict[tuple[str, int], list[str]] = defaultdict(list)
    for line in ROWS.read_text().splitlines():
        row = json.loads(line)
        found["pp" if row["n_prompt"] else "tg", row["n_prompt"] + row["n_gen"]].append(line)
    return dict(found)


def faster(row: str, factor: float) -> str:
    """The same row of a machine that is ``factor`` times as fast."""
    fields = json.loads(row)
    fields["samples_ns"] = [round(ns / factor) for ns in fields["samples_ns"]]
    fields["avg_ns"] = fields["samples_ns"][0]
    fields["avg_ts"] = fields["avg_ts"] * factor
    fields["samples_ts"] = [speed * factor for speed in fields["samples_ts"]]
    return json.dumps(fields)


@dataclass
class RawRun:
    """One run to be written; the defaults are a finished local one.

    Attributes:
        speed: how many times as fast as the recorded machine.
        extra: further outcomes without samples: (task, tokens, outcome, reason).
        ended: whether the session came to its end.
    """

    sweep: str = "20260131-120000-a"
    job: str = "local_desk"
    vendor: str = "local"
    server: str = "desk"
    replica: int = 1
    started: datetime = STARTED
    weights: str = "real"
    speed: float = 1.0
    price_usd_per_hour: float | None = None
    price_per_hour: float | None = None
    currency: str = "USD"
    extra: list[tuple[str, int, str, str]] = field(default_factory=list)
    host: dict[str, Any] = field(default_factory=lambda: dict(HOST))
    ended: bool = True

    def journal(self) -> str:
        """The journal's text: a warm-up and all samples of each scenario, then its outcome."""
        records: list[dict[str, Any]] = [
            {
                "kind": "session", "session": 1, "sweep": self.sweep, "job": self.job, "suite": "quick",
                "weights": self.weights, "threads": 2, "pinning": "0x3", "core_version": "0.1.0", "host": self.host,
                "llama_bench": {"path": "/usr/bin/llama-bench", "version": "1", "build_number": 1,
                                "build_commit": "0c1e570", "help_sha256": "00"},
            },
            {
                "kind": "model", "model": MODEL, "file": FILE, "status": "ready", "weights": self.weights,
                "bytes": 253113024, "sha256": SHA256, "seconds": 1.2, "tensor_bytes": 246587904,
                "parameters": 268098176,
            },
        ]  # fmt: skip
        by_task: dict[str, list[tuple[int, list[str]]]] = defaultdict(list)
        for (task, tokens), rows in rows_by_scenario().items():
            by_task[task].append((tokens, rows))
        for process, (task, scenarios) in enumerate(by_task.items(), 1):
            of = {"process": process, "model": MODEL, "task": task}
            records.append({"kind": "process", **of, "argv": ["llama-bench"], "gpu_layers": 0})
            offload = {
                "asked": 0, "layers": 0, "layers_total": 19, "device": "CPU", "gpu_memory_bytes": None, "proof": "log",
            }  # fmt: skip
            records.append({"kind": "load", **of, "seconds": 0.8, "offload": offload})
            for index, (tokens, rows) in enumerate(scenarios):
                for number, row in enumerate(rows):
                    row = faster(row, self.speed)
                    records.append({
                        "kind": "sample", **of, "tokens": tokens, "warmup": index == 0 and number == 0,
                        "ns": json.loads(row)["samples_ns"][0], "attempt": 1,
                        "noise": {"steal": 0.0, "other_cores": 0.01, "clock_ratio": 1.0, "load1": 0.5}, "row": row,
                    })  # fmt: skip
                records.append(self.outcome(task, tokens, "ok", "", noisy=["cv"] if tokens == 64 else []))
        records += [self.outcome(*one) for one in self.extra]
        if self.ended:
            records.append({"kind": "end", "status": "finished", "message": ""})
        lines = []
        for number, record in enumerate(records):
            at = (self.started + timedelta(seconds=number)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            lines.append(json.dumps({"kind": record["kind"], "at": at, **record}, separators=(",", ":")))
        return "\n".join(lines) + "\n"

    @staticmethod
    def outcome(
        task: str, tokens: int, outcome: str, reason: str, noisy: list[str] | None = None, attempt: int = 1
    ) -> dict[str, Any]:
        """The record of a scenario's end."""
        return {
            "kind": "outcome", "model": MODEL, "task": task, "tokens": tokens, "outcome": outcome, "reason": reason,
            "noisy": noisy or [], "attempt": attempt, "evidence_seconds": None,
        }  # fmt: skip

    def write(self, root: Path) -> Path:
        """Write all files of the run into the lake at ``root``, as the collector does; gives its folder."""
        folder = lake.run_folder(root, self.sweep, self.vendor, self.server, self.replica)
        lake.append_journal(folder, 0, self.journal())
        lake.rebuild_stdout(folder)
        ours = {
            "sweep": self.sweep, "job": self.job, "vendor": self.vendor, "server": self.server, "suite": "quick",
            "replica": self.replica, "price_usd_per_hour": self.price_usd_per_hour, "currency": self.currency,
        }  # fmt: skip
        if self.price_per_hour is not None:
            ours["price_per_hour"] = self.price_per_hour
        end = (self.started + timedelta(minutes=5)).isoformat() if self.ended else None
        meta = lake.RunMeta(
            start=self.started.isoformat(), end=end, exit_code=0 if self.ended else -1, version="0.1.0", benchctl=ours
        )
        lake.write_meta(folder, meta)
        return folder


def write_theirs(root: Path, vendor: str, server: str, *, speed: float = 1.0, file: str = FILE) -> Path:
    """A run as Spare Cores leaves it: no journal, naive times, several repetitions in a row, one row a scenario.

    Args:
        root: below which it is written.
        vendor: the vendor.
        server: the server.
        speed: how many times as fast as the recorded machine.
        file: the name of the model's file.
    """
    folder = root / "data" / vendor / server / "llm"
    folder.mkdir(parents=True)
    lines = []
    for rows in rows_by_scenario().values():
        fields = [json.loads(faster(row, speed)) for row in rows]
        samples = [row["samples_ns"][0] for row in fields]
        merged = {**fields[0], "model_filename": f"/models/{file}", "samples_ns": samples}
        merged["samples_ts"] = [row["samples_ts"][0] for row in fields]
        merged["avg_ts"] = sum(merged["samples_ts"]) / len(fields)
        lines.append(json.dumps(merged))
    (folder / "stdout").write_text("\n".join(lines) + "\n")
    (folder / "stderr").write_text("2025-04-16 13:07:14,436 - INFO - Using CPU-build of llama.cpp\n")
    meta = {
        "start": "2025-04-16T13:06:06.746035", "end": "2025-04-16T13:25:02.529900", "exit_code": 0, "error_msg": None,
        "task_hash": "0", "version": None, "stdout_bytes": 1, "stderr_bytes": 1, "outputs": ["stdout", "stderr"],
    }  # fmt: skip
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder
