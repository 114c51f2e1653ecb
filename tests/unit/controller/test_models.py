"""Naming a model: by name, by file, by repository; what is wrong is said with its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from benchctl import model_check
from benchctl.errors import SettingsFileError, UsageError
from benchctl.models import load_entries, load_models, resolve_model
from llama_bench_core import gguf, synthetic
from llama_bench_core.gguf_format import header_bytes
from llama_bench_core.values import Model

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from benchctl.home import Home

    Benchctl = Callable[..., subprocess.CompletedProcess[str]]

NAMES = ["SmolLM-135M", "Qwen1.5-0.5B-Chat", "gemma-2b", "LLaMA-7b", "phi-4", "Llama-3.3-70B-Instruct"]


def write_gguf(path: Path, extra: list[tuple[str, str, Any]] | None = None, *, layers: int = 1) -> Path:
    metadata = [("general.architecture", "str", "llama"), ("llama.block_count", "u32", layers), *(extra or [])]
    header, _, size = header_bytes(metadata, [("a.weight", (32, 2), "Q8_0")])
    path.write_bytes(header + bytes(size))
    return path


def test_the_carried_models() -> None:
    """Six models, smallest first, each with all that is needed to fetch and to imitate it."""
    entries = load_entries()
    assert list(entries) == NAMES
    models = [entry.model for entry in entries.values()]
    assert [one.tensor_bytes for one in models] == sorted(one.tensor_bytes for one in models)
    for entry in entries.values():
        assert entry.licence
        assert entry.source
        assert entry.model.url == f"https://huggingface.co/{'/'.join(entry.model.url.split('/')[3:])}"
        assert entry.model.url.endswith(entry.model.file)
        assert entry.model.shape
        assert not entry.model.bytes or entry.model.bytes > entry.model.tensor_bytes


@pytest.mark.parametrize("text", ["phi-4", "PHI-4", "phi-4-q4.gguf"])
def test_a_model_by_name(text: str) -> None:
    """Case does not matter, and the file's name will do."""
    assert resolve_model(text).name == "phi-4"


def test_a_mistyped_name() -> None:
    """The nearest name is offered."""
    with pytest.raises(UsageError, match="Did you mean 'SmolLM-135M'") as caught:
        resolve_model("smolm-135")
    assert caught.value.exit_code == 2


def test_a_name_like_no_other() -> None:
    """Where nothing is near, all are listed, and the other ways."""
    with pytest.raises(UsageError, match=r"Known: SmolLM-135M.*hf:owner/repo"):
        resolve_model("xyzzy")


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    """Any GGUF becomes a model with size, figures and a shape from which it can be imitated."""
    path = write_gguf(tmp_path / "mine.gguf")
    model = resolve_model(str(path))
    assert (model.name, model.file, model.path) == ("mine", "mine.gguf", str(path))
    assert (model.bytes, model.parameters, model.tensor_bytes, model.layers) == (path.stat().st_size, 64, 68, 1)
    copy = tmp_path / "copy.gguf"
    synthetic.write(model, copy)
    assert gguf.read_header(copy).tensor_bytes == 68


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    """A broken download is told before anything is started with it."""
    path = write_gguf(tmp_path / "mine.gguf")
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(UsageError, match="is cut short"):
        resolve_model(str(path))


@pytest.mark.parametrize("text", ["missing.gguf", "./missing", "/nowhere/m.gguf"])
def test_a_missing_file(text: str) -> None:
    """What looks like a path is taken for one."""
    with pytest.raises(UsageError, match="There is no file"):
        resolve_model(text)


def test_parts_and_other_things_are_refused(tmp_path: Path) -> None:
    """A part of a model, an adapter and a file without layers are no models that can be measured."""
    with pytest.raises(UsageError, match="one of 3 parts"):
        resolve_model(str(write_gguf(tmp_path / "a.gguf", [("split.count", "u16", 3)])))
    with pytest.raises(UsageError, match="holds no language model"):
        resolve_model(str(write_gguf(tmp_path / "b.gguf", [("general.type", "str", "adapter")])))
    with pytest.raises(UsageError, match="holds no language model"):
        resolve_model(str(write_gguf(tmp_path / "c.gguf", layers=0)))


def test_a_sparse_file_is_not_measured(tmp_path: Path) -> None:
    """What was written to check a header must not become a measurement."""
    path = tmp_path / "m.gguf"
    synthetic.write(load_models()["SmolLM-135M"], path, sparse=True)
    with pytest.raises(UsageError, match="is sparse"):
        resolve_model(str(path))


@pytest.mark.parametrize(
    ("text", "url", "file"),
    [
        ("hf:o/r/m.gguf", "https://huggingface.co/o/r/resolve/main/m.gguf", "m.gguf"),
        ("hf:o/r.1@v2/sub/m.gguf", "https://huggingface.co/o/r.1/resolve/v2/sub/m.gguf", "m.gguf"),
    ],
)
def test_a_file_on_hugging_face(text: str, url: str, file: str) -> None:
    """Owner, repository, revision and folder become the address."""
    model = resolve_model(text)
    assert (model.url, model.file, model.name) == (url, file, file[:-5])


@pytest.mark.parametrize("text", ["hf:", "hf:o/m.gguf", "hf:o/r/m.bin", "hf:o/r/../m.gguf", "hf:o/r/m.gguf?x=1"])
def test_no_file_on_hugging_face(text: str) -> None:
    """What is no file of a repository is refused with the way to write it."""
    with pytest.raises(UsageError, match=r"hf:owner/repo/file\.gguf"):
        resolve_model(text)


def test_parts_on_hugging_face_are_refused() -> None:
    """One part of several can't be measured."""
    with pytest.raises(UsageError, match="several parts"):
        resolve_model("hf:o/r/m-00001-of-00003.gguf")


def test_a_list_of_ones_own(tmp_path: Path) -> None:
    """Further models are added to the carried ones; one of the same name replaces it."""
    path = tmp_path / "more.yml"
    path.write_text("models:\n- {name: mine, file: m.gguf, licence: MIT}\n- {name: phi-4, file: other.gguf}\n")
    models = load_models(path)
    assert set(models) == {*NAMES, "mine"}
    assert models["phi-4"].file == "other.gguf"
    assert resolve_model("mine", path).file == "m.gguf"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("models:\n- name: a\n  file: a.gguf\n  byts: 3\n", 4, "Did you mean 'bytes'"),
        ("models:\n- name: a\n  file: a.gguf\n  bytes: -3\n", 4, "too small"),
        ("models:\n- name: a\n", 2, "no 'file'"),
        ("models:\n- name: a\n  file: a.gguf\n- name: a\n  file: b.gguf\n", 4, "there twice"),
        ("models:\n- name: a\n  file: a.gguf\n  shape:\n    architecture: rwkv\n", 5, "not an architecture"),
        ("models:\n- name: a\n  file: a.gguf\n  file: b.gguf\n", 4, "there twice"),
        ("models:\n- name: a\n  file: a.gguf\n  licence: 3\n", 4, "not text"),
        ("modles: []\n", 1, "not a known key"),
        ("models: {}\n", 1, "not a list"),
        ("models:\n  - name: [a\n", 3, "no valid YAML"),
        ("- 1\n", 1, "no keys and values"),
        ("", 1, "no keys and values"),
    ],
)
def test_a_wrong_list_is_refused_with_its_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    """File, key and line are named."""
    path = tmp_path / "more.yml"
    path.write_text(text)
    with pytest.raises(SettingsFileError, match=said) as caught:
        load_models(path)
    assert caught.value.line == line
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_figures_that_the_shape_does_not_give(tmp_path: Path) -> None:
    """A slip in a figure or a dimension is found when the list is read."""
    from benchctl.content import content_root

    carried = (content_root() / "roles/llama_bench/files/models.yml").read_text()
    path = tmp_path / "more.yml"
    path.write_text(carried.replace("parameters: 134515008", "parameters: 134515009"))
    with pytest.raises(SettingsFileError, match=r"models\.0\.parameters: 134515009 is not what the shape gives"):
        load_models(path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    """A binary file is no list of models, and no traceback."""
    path = tmp_path / "more.yml"
    path.write_bytes(b"models: \x80\x81")
    with pytest.raises(SettingsFileError, match="no valid YAML"):
        load_models(path)


def test_check_compares_with_the_listed_model(tmp_path: Path) -> None:
    """Figures, size and checksum are held against the list; a synthetic file only against the figures."""
    path = write_gguf(tmp_path / "m.gguf")
    size = path.stat().st_size
    import hashlib

    right = hashlib.sha256(path.read_bytes()).hexdigest()
    good = model_check.check(path, [Model("m", "m.gguf", bytes=size, sha256=right, parameters=64, tensor_bytes=68)])
    assert good.ok
    assert good.checked == ("header", "figures", "size", "sha256")
    for wrong, said in (
        (Model("m", "m.gguf", parameters=65), "65"),
        (Model("m", "m.gguf", bytes=size + 1), "bytes where"),
        (Model("m", "m.gguf", sha256="0" * 64), "SHA-256"),
    ):
        verdict = model_check.check(path, [wrong])
        assert not verdict.ok
        assert said in verdict.problem


def test_models_list(benchctl: Benchctl) -> None:
    """The command lists all models, as a table and as JSON."""
    assert all(name in benchctl("models", "list", check=True).stdout for name in NAMES)
    selected = benchctl("models", "list", "--query", "[?parameters > `7000000000`].name", check=True)
    assert selected.stdout.split() == ["[", '"phi-4",', '"Llama-3.3-70B-Instruct"', "]"]


def test_models_synth_and_verify(benchctl: Benchctl, home: Home, tmp_path: Path) -> None:
    """Written weights verify; a cut file does not, and the exit status says so."""
    written = benchctl("models", "synth", "smollm-135m", "--out", tmp_path / "out", check=True)
    path = tmp_path / "out" / "SmolLM-135M.Q4_K_M.gguf"
    assert str(path) in written.stdout
    assert "there already" in benchctl("models", "synth", "SmolLM-135M", "--out", tmp_path / "out", check=True).stdout
    verified = benchctl("models", "verify", path, "--query", "[0].[weights, ok, parameters]", check=True)
    assert verified.stdout.split() == ["[", '"synthetic",', "true,", "134515008", "]"]
    with path.open("r+b") as stream:
        stream.truncate(10_000_000)
    bad = benchctl("models", "verify", path)
    assert bad.returncode == 1
    assert "cut short" in bad.stdout
    assert "1 of 1 files" in bad.stderr
    assert home.state.exists()


def test_models_synth_imitates_a_file(benchctl: Benchctl, tmp_path: Path) -> None:
    """A file of one's own is imitated beside it, never written over."""
    path = write_gguf(tmp_path / "mine.gguf")
    before = path.read_bytes()
    refused = benchctl("models", "synth", path, "--out", tmp_path)
    assert refused.returncode == 2
    assert "the file to imitate itself" in refused.stderr
    assert path.read_bytes() == before
    benchctl("models", "synth", path, "--out", tmp_path / "out", check=True)
    assert gguf.read_header(tmp_path / "out" / "mine.gguf").parameters == 64


def test_models_synth_sparse(benchctl: Benchctl, home: Home) -> None:
    """Forty gibibytes of header take no room; the list says that the file is here, and verify that it is sparse."""
    env = {"BENCHCTL_CACHE": str(home.cache)}
    benchctl("models", "synth", "Llama-3.3-70B-Instruct", "--sparse", check=True, env=env)
    path = home.cache / "models" / "synthetic" / "Llama-3.3-70B-Instruct-Q4_K_M.gguf"
    assert path.stat().st_size > 42_512_531_712
    assert path.stat().st_blocks * 512 < 1 << 20
    here = benchctl("models", "list", "--query", "[?here].[name, here[0]]", check=True, env=env).stdout
    assert here.split() == ["[", "[", '"Llama-3.3-70B-Instruct",', '"synthetic"', "]", "]"]
    verified = benchctl("models", "verify", "Llama-3.3-70B-Instruct", "--query", "[0].weights", check=True, env=env)
    assert verified.stdout.strip() == '"sparse"'


def test_nothing_to_verify(benchctl: Benchctl, home: Home) -> None:
    """Without model files the command says so; a model that is not here is an error with the mend."""
    env = {"BENCHCTL_CACHE": str(home.cache)}
    assert "There are no model files" in benchctl("models", "verify", check=True, env=env).stdout
    missing = benchctl("models", "verify", "phi-4", env=env)
    assert missing.returncode == 2
    assert "benchctl models synth phi-4" in missing.stderr
