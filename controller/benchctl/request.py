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
LAB = "lab"
CLOUDS = ("aws", "gcp", "azure", "hetzner", "upcloud", LAB)
"""Vendors whose servers are rented, and given back; the lab's are containers on this machine."""

VENDORS = (LOCAL, SSH, *CLOUDS)
"""Vendors as the command line calls them."""


_LISTS = ("vendors", "servers", "regions")
_ADDRESSES = ("mirror", "backend")


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
        regions: patterns of regions or zones to rent in; none for all that the catalogue knows.
        spot: rent on the spot market.
        image: the boot image, ``ubuntu-24.04`` or ``debian-12``.
        disk_gb: size of the boot disk, GB; 0 for what the suite needs, at least 75.
        replicas: how many instances of each type.
        only: ``missing``, ``failed``, both with a comma, or empty: servers by what the database lacks.
        older_than: ISO time; servers whose newest measurement is older are measured again. Empty for no such choice.
        concurrency: how many rented servers may exist at once.
        per_vendor: how many of one vendor.
        max_hours: how long one rented server may exist at most, hours.
        ingress: CIDR from which SSH is let in; empty to find out this machine's own address.
        backend: URL of Pulumi's state backend; empty for files below the state directory.
        patience_seconds: how long a server may be out of reach before its job is given up.
        hook: command or URL that is told of the end, of 80 % of the budget, and of a leak; empty for none.
        recorded: of the lab: archive or folder of recorded runs that its servers play; empty for the real llama-bench.
        time_scale: of the lab: how many recorded seconds pass in a second.
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
    regions: tuple[str, ...] = ()
    spot: bool = False
    image: str = "ubuntu-24.04"
    disk_gb: int = 0
    replicas: int = 1
    only: str = ""
    older_than: str = ""
    concurrency: int = 8
    per_vendor: int = 4
    max_hours: float = 6.0
    ingress: str = ""
    backend: str = ""
    patience_seconds: float = 900.0
    hook: str = ""
    recorded: str = ""
    time_scale: float = 1.0

    @property
    def clouds(self) -> tuple[str, ...]:
        """The vendors among those asked for whose servers are rented."""
        return tuple(one for one in self.vendors if one in CLOUDS)

    def to_dict(self) -> dict[str, Any]:
        """What :meth:`from_dict` makes this request of."""
        plain = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("suite", "models")}
        for name in _LISTS:
            plain[name] = list(plain[name])
        return {**plain, "suite": self.suite.to_dict(), "models": [model_to_dict(one) for one in self.models]}

    def without_secrets(self) -> dict[str, Any]:
        """:meth:`to_dict`, but for what :meth:`secrets` gives."""
        return {**self.to_dict(), **{name: _without_password(getattr(self, name)) for name in _ADDRESSES}, "hook": ""}

    def secrets(self) -> dict[str, str]:
        """What only its owner may read, by attribute: addresses with a password, and a hook, which may be one."""
        told = self.without_secrets()
        named = {name: str(getattr(self, name)) for name in (*_ADDRESSES, "hook")}
        return {name: value for name, value in named.items() if value != told[name]}

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> SweepRequest:
        """Read what :meth:`to_dict` wrote; keys of another version are left out.

        Raises:
            SettingsError: it was changed by hand into something that is not valid.
        """
        known = {one.name for one in fields(cls)}
        plain = {key: value for key, value in given.items() if key in known}
        for name in _LISTS:
            plain[name] = tuple(plain.get(name, ()))
        plain["suite"] = Suite.from_dict(plain["suite"])
        plain["models"] = tuple(model_from_dict(one) for one in plain["models"])
        return cls(**plain)

    def public(self) -> dict[str, Any]:
        """The request as the database keeps it: without a password in an address, and without the models' shapes."""
        # a hook's address may be its secret: a command's arguments, a path that only its owner knows
        hidden: dict[str, Any] = {"hook": "given" if self.hook else ""}
        hidden |= {name: _without_password(getattr(self, name)) for name in _ADDRESSES}
        plain = replace(self, **hidden).to_dict()
        plain["models"] = [{key: value for key, value in asdict(one).items() if key != "shape"} for one in self.models]
        return plain


def is_address(url: str) -> bool:
    """Whether ``url`` is one that can be taken apart: a scheme, then whatever that has behind it."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # a wrong one is found when it is asked for
    except ValueError:
        return False
    return bool(parts.scheme)


def is_web_address(url: str) -> bool:
    """Whether ``url`` is one of HTTP or HTTPS, with a host."""
    return is_address(url) and urlsplit(url).scheme in ("http", "https") and bool(urlsplit(url).hostname)


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return url if "@" not in parts.netloc else parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
