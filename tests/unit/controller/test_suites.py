"""Loading suites: by name, by path; what is wrong is said with file, key and line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from benchctl.errors import SettingsFileError, UsageError
from benchctl.suites import load_suite, suite_names
from llama_bench_core.suite import Flags

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
name: mine
models: [SmolLM-135M]
scenarios:
  pp:
    512: 25
    16: 2
policy:
  max_samples: 3
"""


def test_the_default_suite() -> None:
    """Six models, six prompts, five answers, with the wanted speeds of the measurement's definition."""
    suite = load_suite("default")
    assert len(suite.model_names) == 6
    assert [(one.name, one.wanted_tokens_per_second) for one in suite.scenarios] == [
        ("pp16", 2),
        ("pp128", 10),
        ("pp512", 25),
        ("pp1024", 50),
        ("pp4096", 250),
        ("pp16384", 1000),
        ("tg16", 1),
        ("tg128", 5),
        ("tg512", 25),
        ("tg1024", 50),
        ("tg4096", 250),
    ]
    assert suite.flags == Flags(flash_attn=True, batch=2048, ubatch=512, split_mode="layer")


def test_the_quick_suite_is_part_of_the_default_one() -> None:
    """Its rows can be compared with those of the default suite."""
    quick, default = load_suite("quick"), load_suite("default")
    assert set(quick.scenarios) < set(default.scenarios)
    assert quick.model_names == default.model_names[:2]
    assert quick.flags == default.flags


def test_every_carried_suite_loads_under_its_own_name() -> None:
    """Whatever lies in the folder of suites is a suite."""
    assert set(suite_names()) >= {"default", "quick"}
    assert [load_suite(name).name for name in suite_names()] == list(suite_names())


def test_a_suite_of_ones_own(tmp_path: Path) -> None:
    """A path is a suite too."""
    path = tmp_path / "mine.yml"
    path.write_text(GOOD)
    suite = load_suite(str(path))
    assert suite.policy.max_samples == 3
    assert [one.tokens for one in suite.scenarios] == [16, 512]


def test_a_suite_may_name_other_models(tmp_path: Path) -> None:
    """Which models there are is the caller's to say."""
    path = tmp_path / "mine.yml"
    path.write_text(GOOD.replace("SmolLM-135M", "own"))
    assert load_suite(str(path), ["own"]).model_names == ("own",)


def test_a_mistyped_name() -> None:
    """The nearest name is offered."""
    with pytest.raises(UsageError, match="Did you mean 'quick'"):
        load_suite("quik")
    with pytest.raises(UsageError, match="Known: default, quick"):
        load_suite("xyzzy")


def test_a_missing_file(tmp_path: Path) -> None:
    """What looks like a path is taken for one."""
    with pytest.raises(UsageError, match="There is no file"):
        load_suite(str(tmp_path / "missing.yml"))


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "said"),
    [
        ("models:", "modles:", 2, "modles", "Did you mean 'models'"),
        ("[SmolLM-135M]", "[SmolLM-135]", 2, "models.0", "Did you mean 'SmolLM-135M'"),
        ("512: 25", "512: -1", 5, "scenarios.pp.512", "out of range"),
        ("16: 2", "sixteen: 2", 6, "scenarios.pp.sixteen", "not a whole number"),
        ("16: 2", "512: 2", 6, "scenarios.pp.512", "there twice"),
        ("max_samples: 3", "max_sample: 3", 8, "policy.max_sample", "Did you mean 'max_samples'"),
        ("max_samples: 3", "max_samples: three", 8, "policy.max_samples", "not a whole number"),
        ("name: mine\n", "", 1, "name", "no 'name'"),
    ],
)
def test_what_is_wrong_has_a_line(tmp_path: Path, old: str, new: str, line: int, key: str, said: str) -> None:
    """The sentence names the file, the key and the line."""
    path = tmp_path / "mine.yml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(SettingsFileError, match=said) as caught:
        load_suite(str(path))
    assert (caught.value.line, caught.value.key) == (line, key)
    assert f"{path}:{line}: {key}: " in str(caught.value)


def test_aliases_that_grow_do_not_hurt(tmp_path: Path) -> None:
    """Aliases of aliases are looked at once each."""
    rows = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    path = tmp_path / "mine.yml"
    path.write_text("\n".join(rows))
    with pytest.raises(SettingsFileError, match="not a known key"):
        load_suite(str(path))
