"""What llama-bench is asked: the flags of many versions, the arguments of one process, and what is refused."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from llama_bench_core.command import Binary, NotLlamaBenchError, arguments, environment, probe, unsupported
from llama_bench_core.help_text import Device, parse_devices, parse_help, parse_version
from llama_bench_core.leftovers import start_ticks
from llama_bench_core.programs import Finished, run
from llama_bench_core.values import SettingsError

CASES = Path(__file__).parents[2] / "cases" / "help"
FLAGS = {"flash_attn": True, "batch": 2048, "ubatch": 512, "split_mode": "layer"}


def script(folder: Path, text: str, *, mode: int = 0o755) -> str:
    """An executable shell script."""
    path = folder / "llama-bench"
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(mode)
    return str(path)


def version(folder: Path, name: str) -> Binary:
    """What is found of a program that prints the help of one version."""
    return probe(script(folder, f"[ $1 = --help ] && exec cat '{CASES / name}.txt'; exit 1"), run)


def asked(binary: Binary, task: str = "pp", values: tuple[int, ...] = (16, 16), **changes: object) -> list[str]:
    """The arguments of a usual process, without the binary and the model."""
    usual: dict[str, object] = {"repetitions": 1, "warmup": False, "threads": 4, "flags": FLAGS, **changes}
    argv = arguments(binary, "/m/a.gguf", task, values, **usual)  # type: ignore[arg-type]
    assert argv[:3] == [binary.path, "-m", "/m/a.gguf"]
    return argv[3:]


def test_the_newest_help_is_understood_in_full(tmp_path):
    """Every spelling of every flag is found, with its choices and its default."""
    binary = version(tmp_path, "2026-0.5.0")
    assert {
        "-hf",
        "-hfr",
        "--hf-repo",
        "-pg",
        "-ot",
        "--override-tensor",
        "--delay",
        "-nopo",
        "--no-warmup",
    } <= binary.flags
    assert binary.hints["-fa"] == binary.hints["--flash-attn"] == "on|off|auto"
    assert binary.defaults["-ngl"] == "-1"
    assert (binary.streams, binary.reports_progress, binary.pins) == (True, True, True)
    assert not {flag for flag in binary.flags if flag.strip("-") in ("last", "first", "step")}


@pytest.mark.parametrize(
    ("name", "streams", "progress"),
    [("2025-01", False, False), ("2025-08", False, True), ("2026-b8407", True, True), ("2026-0.5.0", True, True)],
)
def test_older_versions_are_accepted_with_what_they_can(tmp_path, name, streams, progress):
    """A version without --no-warmup or --progress is measured in the way that it allows."""
    binary = version(tmp_path, name)
    assert (binary.streams, binary.reports_progress) == (streams, progress)
    argv = asked(binary)
    assert ("--no-warmup" in argv, "--progress" in argv) == (streams, progress)
    assert {word for word in argv if word.startswith("-") and not word[1:].isdigit()} <= binary.flags


def test_one_process_of_the_newest_version(tmp_path):
    """The whole command, as llama-bench gets it."""
    binary = version(tmp_path, "2026-0.5.0")
    argv = " ".join(asked(binary, "tg", (16, 16, 128), verbose=True, cpu_mask="0xf"))
    assert argv == (
        "-n 16,16,128 -p 0 -r 1 -o jsonl --no-warmup --progress -v -t 4 -C 0xf --cpu-strict 1 -ngl 0 -dev none"
        " -fa 1 -b 2048 -ub 512 -sm layer"
    )


def test_repetitions_with_llama_benchs_own_warmup(tmp_path):
    """Where rows can't be streamed, its own warm-up and repetitions are asked for."""
    argv = asked(version(tmp_path, "2025-08"), "pp", (512,), repetitions=3, warmup=True)
    assert argv[:6] == ["-p", "512", "-n", "0", "-r", "3"]
    assert "--no-warmup" not in argv


@pytest.mark.parametrize(
    ("name", "layers", "expected"),
    [
        ("2025-01", -1, ["-ngl", "999"]),
        ("2025-08", -1, ["-ngl", "999"]),
        ("2026-0.5.0", -1, ["-ngl", "-1"]),
        ("2025-08", 17, ["-ngl", "17"]),
        ("2025-01", 0, ["-ngl", "0"]),
        ("2025-08", 0, ["-ngl", "0", "-dev", "none"]),
    ],
)
def test_layers_on_the_gpu(tmp_path, name, layers, expected):
    """All layers are asked for in each version's own way, and a CPU run is kept off the GPU where flags can."""
    argv = asked(version(tmp_path, name), gpu_layers=layers)
    found = argv[argv.index("-ngl") :]
    assert found[: found.index("-fa")] == expected


def test_operation_offload_is_switched_off_where_no_device_can_be_left_out():
    """Between May and August 2025 there was -nopo but no -dev."""
    binary = Binary("b", "", 0, "", frozenset({"-ngl", "-nopo", "-t"}), "")
    assert asked(binary)[-4:] == ["-ngl", "0", "-nopo", "1"]


def test_settings_that_a_version_lacks_are_named(tmp_path):
    """Only those that make a difference: what the binary does anyway is no loss."""
    binary = Binary("b", "", 0, "", frozenset({"-ub"}), "")
    assert unsupported(binary, FLAGS) == ("flash_attn",)
    assert unsupported(binary, {**FLAGS, "split_mode": "row", "batch": 512}) == ("flash_attn", "batch", "split_mode")
    assert unsupported(version(tmp_path, "2025-08"), FLAGS) == ()


def test_an_unknown_setting_is_refused_by_name(tmp_path):
    """A key that no flag belongs to can't be passed on."""
    with pytest.raises(SettingsError) as refused:
        asked(version(tmp_path, "2025-08"), flags={"flash": True})
    assert refused.value.key == "flags.flash"


def test_too_old_a_version_is_refused(tmp_path):
    """March 2024 had no JSON lines."""
    with pytest.raises(NotLlamaBenchError, match=r"too old: it does not know -o jsonl\. Use .* 2024 or newer"):
        version(tmp_path, "2024-03")


def refusal(path: str | Path) -> NotLlamaBenchError:
    """Why a file is refused."""
    with pytest.raises(NotLlamaBenchError) as refused:
        probe(str(path), run)
    assert refused.value.mend
    assert "\n" not in str(refused.value)
    return refused.value


def test_what_is_no_llama_bench_is_refused(tmp_path):
    """Missing, not executable, another program, another format, without its libraries, killed: one sentence each."""
    assert "is not there" in refusal(tmp_path / "absent").problem
    assert "not executable" in refusal(script(tmp_path, "", mode=0o644)).problem
    assert "not executable" in refusal(tmp_path).problem
    assert "is not a llama-bench" in refusal("/bin/ls").problem
    assert (
        "lacks a shared library: libggml.so"
        in refusal(
            script(
                tmp_path,
                "echo 'llama-bench: error while loading shared libraries: libggml.so: cannot open shared object file:"
                " No such file or directory' >&2; exit 127",
            )
        ).problem
    )
    assert "signal 4" in refusal(script(tmp_path, "kill -ILL $$")).problem
    (tmp_path / "other").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(57))
    (tmp_path / "other").chmod(0o755)
    assert "can't be run on this machine" in refusal(tmp_path / "other").problem


def test_a_binary_that_hangs_is_refused_in_time(tmp_path):
    """--help is given a time limit, and what hangs is killed with its children."""
    marker = tmp_path / "pid"
    hanging = script(tmp_path, f"sleep 600 & echo $! > {marker}; wait")
    for limit in (0.5, 5, 40):  # on a machine that is overrun it may take a while to come so far
        with pytest.raises(NotLlamaBenchError, match="did not end within"):
            probe(hanging, run, timeout_seconds=limit)
        if marker.exists() and marker.read_text():
            break
    child, deadline = int(marker.read_text()), time.monotonic() + 60
    while start_ticks(child) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert start_ticks(child) is None


def test_the_help_names_the_version_whatever_its_path(tmp_path):
    """The same help from another path has the same checksum; another help has another."""
    there = tmp_path / "there"
    there.mkdir()
    first, second = version(tmp_path, "2025-08"), version(there, "2025-08")
    assert first.path != second.path
    assert first.help_sha256 == second.help_sha256 != version(there, "2026-0.5.0").help_sha256


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version: 0.5.0-dev (build 1, commit 0c1e570)\nbuilt with GNU 12.2.0", ("0.5.0-dev", 1, "0c1e570")),
        ("ggml_cuda_init: found 1 CUDA devices\nversion: 8659 (e43970099)\nbuilt with", ("8659", 8659, "e43970099")),
        ("nothing of the kind", ("", 0, "")),
    ],
)
def test_versions(text, expected):
    """Both forms in which llama.cpp has named its version, and neither."""
    assert parse_version(text) == expected


def test_devices():
    """The devices are listed with their memory; a machine without any has none."""
    lines = ["Available devices:", "  CUDA0: NVIDIA L40S (45472 MiB, 44887 MiB free)"]
    lines += ["  Vulkan0: Intel(R) UHD (x) (12 MiB, 1 MiB free)", ""]
    assert parse_devices("\n".join(lines)) == (
        Device("CUDA0", "NVIDIA L40S", 45472, 44887),
        Device("Vulkan0", "Intel(R) UHD (x)", 12, 1),
    )
    assert parse_devices("Available devices:\n  (none)\n") == ()


def test_version_and_devices_are_asked_only_where_known():
    """A version that lacks --version would run its default benchmark instead of saying it."""
    calls: list[str] = []

    def answers(argv, _seconds):
        calls.append(argv[1])
        texts = {"--help": (CASES / "2025-08.txt").read_text(), "--list-devices": "Available devices:\n  (none)\n"}
        return Finished(0, texts[argv[1]], "")

    assert probe("llama-bench", answers).devices == ()
    assert calls == ["--help", "--list-devices"]


def test_the_environment_is_an_allow_list():
    """What llama-bench needs passes, secrets don't; a CPU run sees no GPU."""
    base = {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "1",
        "GGML_CUDA_X": "1",
        "AWS_SECRET_ACCESS_KEY": "s",
        "HF_TOKEN": "t",
    }
    base.update({"LD_LIBRARY_PATH": "/l", "OMP_NUM_THREADS": "2", "LD_PRELOAD": "/evil.so", "LANG": "de_DE.UTF-8"})
    passed = environment(base)
    assert set(passed) == {
        *("PATH", "CUDA_VISIBLE_DEVICES", "GGML_CUDA_X", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "LANG", "LC_ALL")
    }
    assert passed["LANG"] == "C"
    assert environment(base, cpu_only=True)["CUDA_VISIBLE_DEVICES"] == "-1"


def test_help_text_of_prose_has_no_flags():
    """Words with hyphens in running text are no flags."""
    assert parse_help("Ranges can be given as\n'first-last' or -x.\n") == (frozenset(), {}, {})
