#!/usr/bin/env python3
"""A llama-bench that plays a recorded run: the flags, the rows and the progress of a real one, in scaled time.

The role puts this file onto a server of a rehearsal in the place of llama-bench. It needs Python 3.9 and nothing else.
What it plays is ``recording.json`` beside it, or else in ``/var/lib/benchctl``: see :mod:`benchctl.lab.recordings`.
Times in the rows are the recorded ones; the clock runs ``time_scale`` times as fast. ``--version`` says that all of it
is played, and at which pace, so that nobody takes it for a measurement. What was never recorded never ends.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

RECORDINGS = (Path(__file__).with_name("recording.json"), Path("/var/lib/benchctl/recording.json"))
NAMES = {"pp": "prompt", "tg": "generation"}
HELP = """usage: llama-bench [options]

options:
  -h, --help
  --version                                 what is played, and how fast
  --list-devices                            list available devices and exit
  -r, --repetitions <n>                     number of times to repeat each test (default: 5)
  -o, --output <csv|json|jsonl|md|sql>      output format printed to stdout; only jsonl is played (default: jsonl)
  -v, --verbose                             verbose output
  --progress                                print test progress indicators
  --no-warmup                               skip warmup runs before benchmarking
  -m, --model <filename>                    (default: none)
  -p, --n-prompt <n>                        (default: 512)
  -n, --n-gen <n>                           (default: 128)
  -b, --batch-size <n>                      (default: 2048)
  -ub, --ubatch-size <n>                    (default: 512)
  -t, --threads <n>                         (default: 1)
  -ngl, --n-gpu-layers <n>                  (default: -1)
  -sm, --split-mode <none|layer|row>        (default: layer)
  -fa, --flash-attn <on|off|auto>           (default: auto)
"""
FLAGS = {
    "-r": "-r", "--repetitions": "-r", "-o": "-o", "--output": "-o", "-m": "-m", "--model": "-m", "-p": "-p",
    "--n-prompt": "-p", "-n": "-n", "--n-gen": "-n", "-b": "-b", "--batch-size": "-b", "-ub": "-ub",
    "--ubatch-size": "-ub", "-t": "-t", "--threads": "-t", "-ngl": "-ngl", "--n-gpu-layers": "-ngl", "-sm": "-sm",
    "--split-mode": "-sm", "-fa": "-fa", "--flash-attn": "-fa",
}  # fmt: skip
SWITCHES = {"-v": "-v", "--verbose": "-v", "--progress": "--progress", "--no-warmup": "--no-warmup"}


class UsageError(Exception):
    """The arguments, or what is to be played, are wrong."""


def main(argv: list[str]) -> int:
    """What a real one does; returns the exit status."""
    try:
        if "-h" in argv or "--help" in argv:
            sys.stdout.write(HELP)
        elif "--version" in argv:
            sys.stderr.write(version() + "\n")
        elif "--list-devices" in argv:
            sys.stdout.write("Available devices:\n  (none)\n")
        else:
            play(arguments(argv), recording())
    except UsageError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def recording() -> dict[str, Any]:
    """What is played."""
    try:
        found: dict[str, Any] = json.loads(next(filter(Path.is_file, RECORDINGS), RECORDINGS[-1]).read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"there is no recording to play: {error}") from error
    if found.get("format") != 1:
        raise UsageError("the recording is of another version")
    return found


def version() -> str:
    """One line; without a recording it still says what this program is."""
    try:
        found = recording()
    except UsageError:
        return "version: replayed (build 0, commit unknown)"
    fields: dict[str, Any] = next((one["fields"] for one in found["models"].values()), {})
    number, commit = int(fields.get("build_number") or 0), fields.get("build_commit") or "unknown"
    return (
        f"version: replayed (build {number}, commit {commit})\n"
        f"replayed: {found['vendor']}/{found['server']}, {found['time_scale']:g} seconds in one"
    )


def arguments(argv: list[str]) -> dict[str, str]:
    """The flags with their values, and llama-bench's own defaults."""
    asked = {"-r": "5", "-p": "512", "-n": "128", "-m": "", "-t": "1", "-ngl": "-1", "-o": "jsonl"}
    left = list(argv)
    while left:
        word = left.pop(0)
        if word in SWITCHES:
            asked[SWITCHES[word]] = "1"
        elif word in FLAGS and left:
            asked[FLAGS[word]] = left.pop(0)
        else:
            raise UsageError(f"invalid parameter for argument: {word}")
    if asked["-o"] != "jsonl":
        raise UsageError("only jsonl is played")
    return asked


def play(asked: dict[str, str], found: dict[str, Any]) -> None:
    """Every test in its turn: its progress on stderr, its row on stdout."""
    tests = [
        (task, int(tokens))
        for task, flag in (("pp", "-p"), ("tg", "-n"))
        for tokens in asked[flag].split(",")
        if int(tokens)
    ]
    model = found["models"].get(Path(asked["-m"]).name)
    if model is None or not Path(asked["-m"]).exists():
        raise UsageError(f"failed to load model '{asked['-m']}'")
    clock = Clock(float(found["time_scale"]))
    taken: dict[tuple[str, int], int] = {}
    for index, (task, tokens) in enumerate(tests, 1):
        say = announcer(asked, index, len(tests))
        say("starting")
        if index == 1:
            load(asked, model, clock)
        recorded = model["samples_ns"].get(f"{task}{tokens}", [])
        if "--no-warmup" not in asked:
            say(f"warmup {NAMES[task]} run")
            one = statistics.mean(recorded) if recorded else None
            clock.run(one if one is None or task == "pp" else one / tokens)
        samples = []
        for repetition in range(1, int(asked["-r"]) + 1):
            say(f"{NAMES[task]} run {repetition}/{asked['-r']}")
            position = taken.get((task, tokens), 0)
            taken[task, tokens] = position + 1
            began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            clock.run(recorded[position % len(recorded)] if recorded else None)
            samples.append(recorded[position % len(recorded)])
        sys.stdout.write(json.dumps(row(asked, model, task, tokens, samples, began)) + "\n")
        sys.stdout.flush()


class Clock:
    """Time that runs faster; what a process takes besides is taken off what is still to be waited for."""

    def __init__(self, scale: float) -> None:
        """Time began with the process: the start of Python is a part of the load."""
        self.scale, self.due = scale, time.monotonic() - age()

    def run(self, nanoseconds: float | None) -> None:
        """Let recorded time pass; for ever where there is none."""
        if nanoseconds is None:
            while True:
                time.sleep(3600)
        self.due += nanoseconds / 1e9 / self.scale
        time.sleep(max(0.0, self.due - time.monotonic()))


def age() -> float:
    """Seconds since this process began; 0 where the kernel does not say."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        up = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0
    return max(0.0, up - ticks / os.sysconf("SC_CLK_TCK"))


def load(asked: dict[str, str], model: dict[str, Any], clock: Clock) -> None:
    """The load: the log that -v asks for, and its time."""
    if "-v" in asked:
        size = int(model["fields"].get("model_size") or 0) / 1024.0**2
        sys.stderr.write("llama_model_loader: loaded meta data\n")
        sys.stderr.write(f"load_tensors: CPU_Mapped model buffer size = {size:.2f} MiB\n")
        sys.stderr.flush()
    clock.run(model["load_seconds"][-1] * 1e9)


def announcer(asked: dict[str, str], index: int, total: int) -> Callable[[str], None]:
    """Says what begins now, if --progress asks for it."""

    def say(what: str) -> None:
        if "--progress" in asked:
            sys.stderr.write(f"llama-bench: benchmark {index}/{total}: {what}\n")
            sys.stderr.flush()

    return say


def row(
    asked: dict[str, str], model: dict[str, Any], task: str, tokens: int, samples: list[int], began: str
) -> dict[str, Any]:
    """A row as the recorded llama-bench printed it, with the times of this run of the recording."""
    speeds = [1e9 * tokens / one for one in samples]
    found = dict(model["fields"])
    found.update(
        model_filename=asked["-m"],
        n_threads=int(asked["-t"]),
        n_gpu_layers=int(asked["-ngl"]),
        n_prompt=tokens if task == "pp" else 0,
        n_gen=tokens if task == "tg" else 0,
        test_time=began,
        avg_ns=round(statistics.mean(samples)),
        stddev_ns=round(statistics.stdev(samples)) if len(samples) > 1 else 0,
        avg_ts=statistics.mean(speeds),
        stddev_ts=statistics.stdev(speeds) if len(speeds) > 1 else 0.0,
        samples_ns=samples,
        samples_ts=speeds,
    )
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
