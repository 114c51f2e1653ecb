"""Suites and models as plain dictionaries: what is right is kept, what is wrong is named."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llama_bench_core.suite import Flags, Suite, model_from_dict, model_to_dict
from llama_bench_core.values import Scenario, SettingsError

QUICK: dict[str, Any] = {
    "name": "mine",
    "models": ["b", "a"],
    "scenarios": {"tg": {128: 5, 16: 1}, "pp": {"512": 25, 16: 2}},
}


def test_scenarios_are_in_order() -> None:
    """Prompts first, then by length, whatever the order in the file; models keep theirs."""
    suite = Suite.from_dict(QUICK)
    assert suite.scenarios == (
        Scenario("pp", 16, 2.0),
        Scenario("pp", 512, 25.0),
        Scenario("tg", 16, 1.0),
        Scenario("tg", 128, 5.0),
    )
    assert suite.model_names == ("b", "a")
    assert [one.tokens for one in suite.of_task("tg")] == [16, 128]


def test_what_is_not_given_has_defaults() -> None:
    """Flags and policy are those of the measurement's definition."""
    suite = Suite.from_dict(QUICK)
    assert suite.flags == Flags(flash_attn=True, batch=2048, ubatch=512, split_mode="layer")
    assert suite.policy.max_samples == 5


def test_a_suite_survives_json() -> None:
    """Ansible hands a module its parameters as JSON, where keys are text."""
    suite = Suite.from_dict({**QUICK, "policy": {"max_samples": 3}, "flags": {"ubatch": 64}})
    assert Suite.from_dict(json.loads(json.dumps(suite.to_dict()))) == suite


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        ({"modles": []}, "modles", "Did you mean 'models'"),
        ({"models": "a"}, "models", "not a list"),
        ({"models": []}, "models", "no model"),
        ({"models": ["a", "a"]}, "models.1", "given twice"),
        ({"models": [1]}, "models.0", "not text"),
        ({"scenarios": {"pq": {1: 1}}}, "scenarios.pq", "not a known key"),
        ({"scenarios": {}}, "scenarios", "no scenario"),
        ({"scenarios": {"pp": [1]}}, "scenarios.pp", "not a mapping"),
        ({"scenarios": {"pp": {"x": 1}}}, "scenarios.pp.x", "not a whole number"),
        ({"scenarios": {"pp": {0: 1}}}, "scenarios.pp.0", "too small"),
        ({"scenarios": {"pp": {16: 0}}}, "scenarios.pp.16", "out of range"),
        ({"scenarios": {"pp": {16: -3}}}, "scenarios.pp.16", "out of range"),
        ({"scenarios": {"pp": {16: float("nan")}}}, "scenarios.pp.16", "out of range"),
        ({"scenarios": {"pp": {16: "fast"}}}, "scenarios.pp.16", "not a number"),
        ({"scenarios": {"pp": {16: True}}}, "scenarios.pp.16", "not a number"),
        ({"scenarios": {"pp": {16: 1, "16": 2}}}, "scenarios.pp.16", "given twice"),
        ({"flags": {"batch": 0}}, "flags.batch", "too small"),
        ({"flags": {"batch": 64}}, "flags.ubatch", "larger than the logical"),
        ({"flags": {"flash_attn": 1}}, "flags.flash_attn", "neither true nor false"),
        ({"flags": {"split_mode": "tensor"}}, "flags.split_mode", "not one of"),
        ({"policy": {"max_sample": 5}}, "policy.max_sample", "Did you mean 'max_samples'"),
        ({"policy": {"min_samples": 2.5}}, "policy.min_samples", "not a whole number"),
        ({"policy": {"agreement": 0}}, "policy.agreement", "out of range"),
        ({"policy": {"max_samples": 1}}, "policy.max_samples", "At least 2 samples"),
        ({"name": ""}, "name", "empty"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], key: str, said: str) -> None:
    """The error names the key and says what is wrong with it."""
    with pytest.raises(SettingsError, match=said) as caught:
        Suite.from_dict({**QUICK, **change})
    assert caught.value.key == key


@pytest.mark.parametrize("missing", ["name", "models", "scenarios"])
def test_what_is_missing_is_named(missing: str) -> None:
    """A suite without its essentials is none."""
    with pytest.raises(SettingsError, match=f"no '{missing}'"):
        Suite.from_dict({key: value for key, value in QUICK.items() if key != missing})


def test_a_model_survives_json() -> None:
    """All fields of a model travel to the target and back."""
    model = model_from_dict(
        {"name": "m", "file": "m.gguf", "bytes": 5, "sha256": "AB" * 32, "url": "https://x/m", "shape": {"heads": 4}}
    )
    assert model.sha256 == "ab" * 32
    assert model_from_dict(json.loads(json.dumps(model_to_dict(model)))) == model


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"file": "../m.gguf"}, "file"),
        ({"file": ".."}, "file"),
        ({"sha256": "abc"}, "sha256"),
        ({"url": "ftp://x/m"}, "url"),
        ({"bytes": -1}, "bytes"),
        ({"bytes": "1"}, "bytes"),
        ({"shape": []}, "shape"),
        ({"byts": 1}, "byts"),
    ],
)
def test_a_wrong_model_is_refused(change: dict[str, Any], key: str) -> None:
    """A model's file name stays within the folder of models; figures are figures."""
    with pytest.raises(SettingsError) as caught:
        model_from_dict({"name": "m", "file": "m.gguf", **change})
    assert caught.value.key == key
