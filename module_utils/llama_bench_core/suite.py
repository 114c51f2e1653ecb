"""A suite: which models to measure at which lengths, and by which numbers to decide. Read once, checked, then trusted.

The same plain dictionary is a YAML file that a user edits, a parameter of the Ansible module, and a record beside the
results; :meth:`Suite.from_dict` is the one boundary where it is checked. An error names the key, as
``scenarios.pp.512``, so that whoever read the file can add the line.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .values import TASKS, Model, PolicySettings, Scenario, SettingsError

SPLIT_MODES = ("none", "layer", "row")
"""How llama-bench divides a model over several GPUs (``-sm``)."""

MODEL_NOTES = ("licence", "source")
"""Keys of a model that inform people only; accepted and left out of :class:`Model`."""

_SUITE_KEYS = ("name", "description", "models", "scenarios", "flags", "policy")
_MAY_BE_ZERO = (
    "noise_retries",
    "gpu_no_skip_below_tokens",
    "max_steal",
    "max_other_cores",
    "warmup_seconds",
    "short_scenario_seconds",
    "repeat_seconds",
)


@dataclass(frozen=True)
class Flags:
    """The switches of llama-bench that belong to the measurement's definition.

    Attributes:
        flash_attn: ``-fa``.
        batch: logical batch size, tokens (``-b``).
        ubatch: physical batch size, tokens (``-ub``).
        split_mode: ``-sm``, one of :data:`SPLIT_MODES`.
    """

    flash_attn: bool = True
    batch: int = 2048
    ubatch: int = 512
    split_mode: str = "layer"

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Flags:
        """Check ``given``, the value of the suite's key ``flags``.

        Raises:
            SettingsError: a key is unknown or a value is not valid.
        """
        _known_keys(given, tuple(one.name for one in fields(cls)), "flags")
        flags = cls(
            flash_attn=_boolean(given.get("flash_attn", True), "flags.flash_attn"),
            batch=_integer(given.get("batch", 2048), "flags.batch", least=1),
            ubatch=_integer(given.get("ubatch", 512), "flags.ubatch", least=1),
            split_mode=_choice(given.get("split_mode", "layer"), SPLIT_MODES, "flags.split_mode"),
        )
        if flags.ubatch > flags.batch:
            raise SettingsError(
                f"The physical batch ({flags.ubatch}) is larger than the logical one ({flags.batch}).",
                "Lower ubatch or raise batch.",
                "flags.ubatch",
            )
        return flags


@dataclass(frozen=True)
class Suite:
    """What one measurement consists of.

    Attributes:
        name: how it is called, e.g. ``quick``.
        description: one sentence for a person.
        model_names: short names of the models, in the order in which they are measured.
        scenarios: the lengths to measure with each model; prompts first, each task by ascending token count.
        flags: llama-bench's switches.
        policy: the numbers that the policy decides by.
    """

    name: str
    description: str
    model_names: tuple[str, ...]
    scenarios: tuple[Scenario, ...]
    flags: Flags = field(default_factory=Flags)
    policy: PolicySettings = field(default_factory=PolicySettings)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Suite:
        """Check the dictionary that a suite's YAML file, or JSON, holds.

        Whether the models exist is not known here: who has the models checks it.

        Raises:
            SettingsError: a key is missing or unknown, or a value is not valid; its ``key`` says where.
        """
        _mapping(given, "")
        _known_keys(given, _SUITE_KEYS, "")
        for required in ("name", "models", "scenarios"):
            if required not in given:
                raise SettingsError(f"The suite has no '{required}'.", "Add it.", required)
        return cls(
            name=_text(given["name"], "name"),
            description=_text(given.get("description") or "", "description", may_be_empty=True),
            model_names=_names(given["models"], "models"),
            scenarios=_scenarios(given["scenarios"]),
            flags=Flags.from_dict(_mapping(given.get("flags") or {}, "flags")),
            policy=policy_from_dict(_mapping(given.get("policy") or {}, "policy")),
        )

    def to_dict(self) -> dict[str, Any]:
        """The dictionary that :meth:`from_dict` makes this suite of; plain enough for JSON and YAML."""
        scenarios: dict[str, dict[int, float]] = {}
        for one in self.scenarios:
            scenarios.setdefault(one.task, {})[one.tokens] = one.wanted_tokens_per_second
        return {
            "name": self.name,
            "description": self.description,
            "models": list(self.model_names),
            "scenarios": scenarios,
            "flags": asdict(self.flags),
            "policy": asdict(self.policy),
        }

    def of_task(self, task: str) -> tuple[Scenario, ...]:
        """The scenarios of one task, by ascending token count."""
        return tuple(one for one in self.scenarios if one.task == task)


def policy_from_dict(given: Mapping[str, Any]) -> PolicySettings:
    """Check the value of the suite's key ``policy``; what is not given keeps its default.

    Raises:
        SettingsError: a key is unknown or a value is not valid.
    """
    defaults = {one.name: getattr(PolicySettings(), one.name) for one in fields(PolicySettings)}
    _known_keys(given, tuple(defaults), "policy")
    checked: dict[str, Any] = {}
    for name, value in given.items():
        key = f"policy.{name}"
        if isinstance(defaults[name], int):
            checked[name] = _integer(value, key, least=0 if name in _MAY_BE_ZERO else 1)
        else:
            checked[name] = _number(value, key, may_be_zero=name in _MAY_BE_ZERO)
    settings = PolicySettings(**checked)
    if settings.min_samples > settings.max_samples:
        raise SettingsError(
            f"At least {settings.min_samples} samples are asked for, but at most {settings.max_samples}.",
            "Lower min_samples or raise max_samples.",
            "policy.max_samples" if "max_samples" in given else "policy.min_samples",
        )
    return settings


def model_from_dict(given: Mapping[str, Any]) -> Model:
    """Check one model, as ``models.yml`` and the module's parameter ``models`` describe it.

    Raises:
        SettingsError: a key is missing or unknown, or a value is not valid.
    """
    _mapping(given, "")
    known = tuple(one.name for one in fields(Model))
    _known_keys(given, known + MODEL_NOTES, "")
    for required in ("name", "file"):
        if required not in given:
            raise SettingsError(f"The model has no '{required}'.", "Add it.", required)
    file = _text(given["file"], "file")
    if "/" in file or "\\" in file or file in (".", ".."):
        raise SettingsError(f"'{file}' is not a plain file name.", "Leave out the folder.", "file")
    url = _text(given.get("url") or "", "url", may_be_empty=True)
    if url and not url.startswith(("https://", "http://")):
        raise SettingsError(f"'{url}' is not a web address.", "It begins with https:// or http://.", "url")
    sha256 = _text(given.get("sha256") or "", "sha256", may_be_empty=True).lower()
    if sha256 and (len(sha256) != 64 or set(sha256) - set("0123456789abcdef")):
        raise SettingsError(f"'{sha256}' is not a SHA-256.", "It has 64 hexadecimal digits.", "sha256")
    shape = given.get("shape")
    return Model(
        name=_text(given["name"], "name"),
        file=file,
        bytes=_integer(given.get("bytes") or 0, "bytes"),
        sha256=sha256,
        url=url,
        path=_text(given.get("path") or "", "path", may_be_empty=True),
        parameters=_integer(given.get("parameters") or 0, "parameters"),
        tensor_bytes=_integer(given.get("tensor_bytes") or 0, "tensor_bytes"),
        layers=_integer(given.get("layers") or 0, "layers"),
        shape=None if shape is None else dict(_mapping(shape, "shape")),
    )


def model_to_dict(model: Model) -> dict[str, Any]:
    """The dictionary that :func:`model_from_dict` makes ``model`` of."""
    plain = {one.name: getattr(model, one.name) for one in fields(Model)}
    plain["shape"] = None if model.shape is None else dict(model.shape)
    return plain


def _scenarios(given: Any) -> tuple[Scenario, ...]:
    _mapping(given, "scenarios")
    _known_keys(given, TASKS, "scenarios")
    found = []
    for task in TASKS:
        lengths = _mapping(given.get(task) or {}, f"scenarios.{task}")
        seen = {}
        for tokens, wanted in lengths.items():
            key = f"scenarios.{task}.{tokens}"
            # JSON knows only text as keys, and Ansible hands a module its parameters as JSON.
            count = _integer(int(tokens) if isinstance(tokens, str) and tokens.isdigit() else tokens, key, least=1)
            if count in seen:
                raise SettingsError(f"{count} tokens are given twice.", "Remove one.", key)
            seen[count] = Scenario(task, count, _number(wanted, key))
        found += [seen[count] for count in sorted(seen)]
    if not found:
        raise SettingsError(
            "The suite has no scenario.", "Give tokens and wanted tokens/s, as pp: {512: 25}.", "scenarios"
        )
    return tuple(found)


def _names(given: Any, key: str) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise SettingsError(f"{_shown(given)} is not a list of names.", "Write it as [a, b].", key)
    names = tuple(_text(one, f"{key}.{index}") for index, one in enumerate(given))
    if not names:
        raise SettingsError("The suite has no model.", "Name at least one.", key)
    for index, name in enumerate(names):
        if name in names[:index]:
            raise SettingsError(f"'{name}' is given twice.", "Remove one.", f"{key}.{index}")
    return names


def _known_keys(given: Mapping[Any, Any], known: tuple[str, ...], key: str) -> None:
    for one in given:
        if one in known:
            continue
        near = difflib.get_close_matches(str(one), known, n=1)
        mend = f"Did you mean '{near[0]}'?" if near else f"Known: {', '.join(known)}."
        raise SettingsError(f"'{one}' is not a known key.", mend, f"{key}.{one}" if key else str(one))


def _mapping(given: Any, key: str) -> Mapping[Any, Any]:
    if not isinstance(given, Mapping):
        raise SettingsError(f"{_shown(given)} is not a mapping.", "Write keys and values, as key: value.", key)
    return given


def _text(given: Any, key: str, may_be_empty: bool = False) -> str:
    if not isinstance(given, str):
        raise SettingsError(f"{_shown(given)} is not text.", "Put it in quotes.", key)
    if not given.strip() and not may_be_empty:
        raise SettingsError("The value is empty.", "Give one.", key)
    return given


def _boolean(given: Any, key: str) -> bool:
    if not isinstance(given, bool):
        raise SettingsError(f"{_shown(given)} is neither true nor false.", "Write true or false.", key)
    return given


def _integer(given: Any, key: str, least: int = 0) -> int:
    if isinstance(given, bool) or not isinstance(given, int):
        raise SettingsError(f"{_shown(given)} is not a whole number.", f"Give one of {least} or more.", key)
    if given < least:
        raise SettingsError(f"{given} is too small.", f"Give a whole number of {least} or more.", key)
    return given


def _number(given: Any, key: str, may_be_zero: bool = False) -> float:
    bound = "0 or more" if may_be_zero else "more than 0"
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        raise SettingsError(f"{_shown(given)} is not a number.", f"Give one of {bound}.", key)
    if not 0 < given < 1e15 and not (may_be_zero and given == 0):
        raise SettingsError(f"{_shown(given)} is out of range.", f"Give a number of {bound}.", key)
    return float(given)


def _choice(given: Any, choices: tuple[str, ...], key: str) -> str:
    if given not in choices:
        raise SettingsError(f"{_shown(given)} is not one of {', '.join(choices)}.", "Choose one of them.", key)
    return str(given)


def _shown(given: Any) -> str:
    """A value as a message shows it; short, whatever it is."""
    if given is None:
        return "Nothing"
    text = repr(given)
    return text if len(text) <= 60 else text[:57] + "..."
