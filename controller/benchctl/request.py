"""What a sweep was asked for: plain enough to be written down, whole enough for ``--resume`` to need no flag."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llama_bench_core.suite import Suite, model_from_dict, model_to_dict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_bench_core.values import Model

LOCAL = "local"
SSH = "ssh"
VENDORS = (LOCAL, SSH)
"""Vendors that this version can measure."""

CLOUDS = ("aws", "gcp", "azure", "hetzner", "upcloud", "lab")
"""Vendors that are named, and not in this version."""


@dataclass(frozen=True)
class SweepRequest:
    """One call of ``benchctl sweep``.

    Attributes:
        vendors: where to measure.
        suite: what to measure; its model names are those of ``models``.
        models: the models.
        inventory: path of the Ansible inventory for ``ssh``; empty for none.
        servers: patterns of server names, any of which must match; none for all.
        weights: ``auto``, ``real`` or ``synthetic``.
        llama_bench: path of llama-bench on the controller; empty to find or build one.
        mirror: URL tried first for model files; empty for none.
        connections: connections per download.
        threads: llama-bench's threads; 0 for the number of physical cores.
        device: ``auto``, ``cpu`` or ``gpu``.
        price: what a server costs, as it was given; empty when unknown.
        budget: the most that the sweep may cost, as it was given; empty for no limit.
        poll_seconds: how often servers are looked at; 0 for the default of the vendor.
    """

    vendors: tuple[str, ...]
    suite: Suite
    models: tuple[Model, ...]
    inventory: str = ""
    servers: tuple[str, ...] = ()
    weights: str = "auto"
    llama_bench: str = ""
    mirror: str = ""
    connections: int = 4
    threads: int = 0
    device: str = "auto"
    price: str = ""
    budget: str = ""
    poll_seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """What :meth:`from_dict` makes this request of."""
        plain = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("suite", "models")}
        plain["vendors"], plain["servers"] = list(self.vendors), list(self.servers)
        return {**plain, "suite": self.suite.to_dict(), "models": [model_to_dict(one) for one in self.models]}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> SweepRequest:
        """Read what :meth:`to_dict` wrote; keys of another version are left out.

        Raises:
            SettingsError: it was changed by hand into something that is not valid.
        """
        known = {one.name for one in fields(cls)}
        plain = {key: value for key, value in given.items() if key in known}
        plain["vendors"], plain["servers"] = tuple(plain["vendors"]), tuple(plain.get("servers", ()))
        plain["suite"] = Suite.from_dict(plain["suite"])
        plain["models"] = tuple(model_from_dict(one) for one in plain["models"])
        return cls(**plain)

    def public(self) -> dict[str, Any]:
        """The request as the database keeps it: without a password in an address, and without the models' shapes."""
        plain = replace(self, mirror=_without_password(self.mirror)).to_dict()
        plain["models"] = [{key: value for key, value in asdict(one).items() if key != "shape"} for one in self.models]
        return plain


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return url if "@" not in parts.netloc else parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
