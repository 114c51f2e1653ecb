"""What the lab's servers play: one recorded run each, as a small file; and model files that nobody reads.

The file is mounted into the server, where the replayed llama-bench (:mod:`benchctl.lab.replayed_llama_bench`) reads it:

.. code-block:: json

    {"format": 1, "vendor": "aws", "server": "m7i.large", "time_scale": 60.0,
     "models": {"gemma-2b.Q4_K_M.gguf": {"load_seconds": [1.9, 0.8], "fields": {"cpu_info": "..."},
                                         "samples_ns": {"pp16": [1, 2], "tg16": [3, 4]}}}}
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_bench_core import synthetic
from llama_bench_core.rows import RowError, parse_row

from benchctl.errors import UsageError
from benchctl.lab.types import PREFIX, type_of
from benchctl.lake import META, STDERR, STDOUT
from benchctl.replay.corpus import RawRun, raw_runs
from benchctl.replay.recording import RecordingError, read_recorded, typical_load_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FORMAT = 1
ON_THE_SERVER = "/var/lib/benchctl/recording.json"
PROGRAM = Path(__file__).with_name("replayed_llama_bench.py")

_MEASURED = ("samples_ns", "samples_ts", "avg_ns", "avg_ts", "stddev_ns", "stddev_ts", "test_time", "n_prompt", "n_gen")
"""Fields of a row that are its measurement; the others are of the machine, the model and the build."""


def read(run: RawRun) -> dict[str, Any]:
    """What a recorded run has to be played; without models where it holds no row.

    Raises:
        RecordingError: its ``meta.json`` can't be read.
    """
    stdout = run.texts.get(STDOUT, "")
    recorded = read_recorded(run.vendor, run.server, run.texts[META], stdout, run.texts.get(STDERR, ""))
    models: dict[str, dict[str, Any]] = {}
    for line in stdout.splitlines():
        with contextlib.suppress(RowError):
            row = parse_row(line)
            file = row.model_filename.rpartition("/")[2]
            model = models.setdefault(file, {"load_seconds": [1.0], "fields": {}, "samples_ns": {}})
            model["samples_ns"][f"{row.task}{row.tokens}"] = list(row.samples_ns)
            model["fields"] = {key: value for key, value in row.fields.items() if key not in _MEASURED}
    for file, model in models.items():
        loads = typical_load_seconds(recorded, file)
        if loads is not None:
            model["load_seconds"] = [round(one, 3) for one in loads]
    return {"format": FORMAT, "vendor": run.vendor, "server": run.server, "models": models}


@dataclass(frozen=True)
class Playable:
    """A recorded run that a server type plays.

    Attributes:
        vendor: of the recorded server.
        server: its name.
        threads: of its llama-bench, the nearest to its cores that a row tells.
        file: where :func:`read`'s answer lies.
    """

    vendor: str
    server: str
    threads: int
    file: Path


def playable(cache: Path, path: Path) -> dict[str, Playable]:
    """By server type, what can be played: the recorded runs below a folder or in an archive that hold rows.

    The first time an archive is read through and each run is kept as a small file (2,145 runs: half a minute). Of runs
    of the same server name the first counts.

    Args:
        cache: where the small files are kept.
        path: folder or archive of raw results.

    Raises:
        UsageError: there is no such path, or nothing in it can be played.
    """
    folder = cache / "lab" / "recordings" / _mark(path)
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "index.json"
    with _locked(folder / "lock"):
        if not index.is_file():
            _take_apart(path, folder)
        listed = json.loads(index.read_text())
    if not listed:
        raise UsageError(f"No recorded run in {path} can be played.", "Give the folder or archive of raw results.")
    return {
        name: Playable(one["vendor"], one["server"], one["threads"], folder / one["file"])
        for name, one in listed.items()
    }


def _take_apart(path: Path, folder: Path) -> None:
    listed: dict[str, dict[str, Any]] = {}
    for run in raw_runs(path):
        name = type_of(run.server)
        if name in listed:
            continue
        with contextlib.suppress(RecordingError):
            recording = read(run)
            if recording["models"]:
                file = f"{len(listed)}.json"
                (folder / file).write_text(json.dumps(recording))
                about = {"vendor": run.vendor, "server": run.server, "threads": _threads(recording), "file": file}
                listed[name] = about
    fresh = folder / "index.new"
    fresh.write_text(json.dumps(listed))
    fresh.replace(folder / "index.json")


def _threads(recording: Mapping[str, Any]) -> int:
    found = [model["fields"].get("n_threads") for model in recording["models"].values()]
    return max((int(one) for one in found if isinstance(one, int) and one > 0), default=1)


def _mark(path: Path) -> str:
    """Names what lies at a path: another name when it has changed."""
    files = [path, *sorted(path.rglob("*"))] if path.is_dir() else [path] if path.exists() else []
    seen = [(str(one.absolute()), one.stat().st_mtime_ns, one.stat().st_size) for one in files]
    return hashlib.sha256(repr((FORMAT, str(path.absolute()), seen)).encode()).hexdigest()[:16]


def prepare(cache: Path, path: Path, server_type: str, time_scale: float) -> Path:
    """The file that a server of this type plays; written unless it is there.

    Args:
        cache: where it is kept.
        path: folder or archive of recorded runs.
        server_type: a key of :func:`playable`.
        time_scale: how many recorded seconds pass in a second.

    Raises:
        UsageError: nothing was recorded of that server.
    """
    found = playable(cache, path).get(server_type)
    if found is None:
        raise UsageError(
            f"No recorded run of {server_type.removeprefix(PREFIX)} is in {path}.",
            f"Server types that play a recording are called {PREFIX} and the recorded server's name.",
        )
    target = found.file.with_name(f"{found.file.stem}-{time_scale:g}.json")
    if not target.is_file():
        fresh = target.with_suffix(f".{os.getpid()}.new")
        fresh.write_text(json.dumps({**json.loads(found.file.read_text()), "time_scale": time_scale}))
        fresh.replace(target)
    return target


def program(cache: Path) -> Path:
    """The llama-bench of a rehearsal with recorded runs: the role puts it where it puts a real one."""
    target = cache / "lab" / "replayed" / "llama-bench"
    content = PROGRAM.read_bytes()
    if not target.is_file() or target.read_bytes() != content:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_suffix(f".{os.getpid()}.new")
        fresh.write_bytes(content)
        fresh.chmod(0o755)
        fresh.replace(target)
    return target


def hollow_models(cache: Path) -> Path:
    """A folder of model files that hold a whole header and nothing else: files with a hole of the right size.

    A replayed llama-bench reads none of it, so a hundred servers need no disk for weights. They lie apart from models
    that are measured, because a real llama-bench would read zeros.
    """
    from benchctl.models import load_models

    folder = cache / "lab" / "hollow"
    (folder / synthetic.FOLDER).mkdir(parents=True, exist_ok=True)
    with _locked(folder / "lock"):
        for model in load_models().values():
            target = folder / synthetic.FOLDER / model.file
            if model.shape is None or synthetic.present(model, target):
                continue
            header, _, body = synthetic.header_of(model)
            fresh = target.with_suffix(".new")
            with fresh.open("wb") as file:
                file.write(header)
                file.truncate(len(header) + body)
            fresh.replace(target)
    return folder


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
