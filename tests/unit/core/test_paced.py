"""A recording that is played fast, in the time of what is played."""

from __future__ import annotations

import pytest
from llama_bench_core.events import Exited, ProgressLine, Tick
from llama_bench_core.help_text import parse_pace
from llama_bench_core.paced import PacedLauncher
from llama_bench_core.playback import Playback, Recording


@pytest.mark.parametrize(
    ("text", "pace"),
    [
        ("version: replayed (build 1, commit abc)\nreplayed: aws/m7i.large, 60 seconds in one", 60.0),
        ("replayed: aws/m7i.large, 2.5 seconds in one", 2.5),
        ("replayed: aws/m7i.large, 1e+03 seconds in one", 1000.0),
        ("version: 0.5.0-dev (build 1, commit 0c1e570)", 0.0),
        ("replayed: x, ... seconds in one", 0.0),
        ("", 0.0),
    ],
)
def test_the_pace_is_told_by_what_is_played_alone(text, pace):
    assert parse_pace(text) == pace


def test_all_times_of_a_process_are_stretched_by_its_pace():
    argv = ["llama-bench", "-m", "m.gguf", "-p", "16", "-n", "0", "-r", "1", "--no-warmup", "--progress"]
    recording = Recording("m.gguf", {("pp", 16): [2_000_000_000]}, 1.0)

    def course(launcher):
        with launcher.start(argv, stderr_path="", env={}) as process:
            return list(process.events())

    plain = course(Playback([recording]))
    paced = course(PacedLauncher(Playback([recording]), 10.0))
    assert [type(one) for one in paced] == [type(one) for one in plain]
    assert [one.at for one in paced] == [one.at * 10 for one in plain]
    assert {Tick, ProgressLine, Exited} <= {type(one) for one in paced}
    assert paced[-1].elapsed == plain[-1].elapsed * 10 == 30.0
