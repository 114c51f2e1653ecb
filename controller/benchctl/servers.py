"""Which servers there are to measure: this machine, those of an inventory that a user wrote, and those of clouds."""

from __future__ import annotations

import difflib
import fnmatch
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchctl.errors import UsageError
from benchctl.plan import Found, Machine, Server, parse_price, slug
from benchctl.request import LAB, LOCAL, SSH, SweepRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llama_bench_core.host import HostFacts

    from benchctl.home import Home
    from benchctl.plan import Price

GROUP = "bench"
"""The group of an inventory whose hosts are measured; all its hosts where it has no such group."""

_SHOWN = 12
"""Names of servers that a sentence shows at most."""

_GIB = 1024**3


def find_servers(request: SweepRequest, home: Home) -> Found:
    """The servers that a request means, as far as they are known before somebody looks at them.

    Raises:
        UsageError: there are none, or the inventory can't be read, or the catalogue is empty.
    """
    price = parse_price(request.price) if request.price else None
    found: list[Server] = []
    if LOCAL in request.vendors:
        found.append(local_server(home, price))
    if SSH in request.vendors:
        if not request.inventory:
            raise UsageError("The vendor ssh needs an inventory.", "Give one with --inventory hosts.yml.")
        found += ssh_servers(Path(request.inventory), price)
    chosen = [one for one in found if _chosen(one, request.servers)]
    names = tuple(one.name for one in found)
    notes: tuple[str, ...] = ()
    if request.clouds:
        in_clouds = _cloud_servers(request, home)
        chosen += in_clouds.servers
        names, notes = (*names, *in_clouds.names), in_clouds.notes
    if not chosen:
        raise _none_chosen(request, names)
    return Found(chosen, notes, names)


def _cloud_servers(request: SweepRequest, home: Home) -> Found:
    from benchctl.cloud_servers import find_cloud_servers
    from benchctl.db.engine import open_database, reading
    from benchctl.db.prices import newest_rates

    if LAB in request.clouds:  # its catalogue is written when it is first asked for
        home.ensure()
    engine = open_database(home.database_url, create=LAB in request.clouds)
    try:
        if LAB in request.clouds:
            from benchctl.lab.catalogue import ensure_catalogue

            ensure_catalogue(engine, home.cache, request.recorded)
        with reading(engine) as session:
            return find_cloud_servers(session, request, newest_rates(session))
    finally:
        engine.dispose()


def _none_chosen(request: SweepRequest, names: Sequence[str]) -> UsageError:
    if not names:
        return UsageError("There is no server to measure.")
    matching = [one for one in names if any(fnmatch.fnmatchcase(one.lower(), p.lower()) for p in request.servers)]
    if matching or not request.servers:
        return UsageError(
            "No server is left to measure: the database lacks nothing of what was asked for.",
            "Leave out --missing, --failed and --older-than to measure again.",
        )
    near = difflib.get_close_matches(request.servers[0], names, n=3)
    shown = near or names[:_SHOWN]
    more = f" and {len(names) - _SHOWN} more" if not near and len(names) > _SHOWN else ""
    return UsageError(
        f"No server matches {', '.join(request.servers)}.",
        f"{'Did you mean' if near else 'There are'}: {', '.join(shown)}{more}{'?' if near else '.'}",
    )


def local_server(home: Home, price: Price | None = None) -> Server:
    """This machine; its name comes from what it is made of, so that it stays the same from sweep to sweep."""
    from llama_bench_core import host

    models = models_folder(home)
    facts = host.gather(paths=[str(models)])
    files = frozenset(path.name for path in models.glob("*.gguf")) if models.is_dir() else frozenset()
    return Server(LOCAL, machine_name(facts), "localhost", machine_of(facts, files), price)


def models_folder(home: Home) -> Path:
    """Where this machine keeps its model files."""
    return home.cache / "models"


def machine_name(facts: HostFacts) -> str:
    """The name of a machine without a vendor: CPU model, physical cores and memory, as ``amd-epyc-7763-2c-8g``."""
    memory_gib = max(1, round(facts.memory_bytes / _GIB))
    gpus = f"-{len(facts.gpus)}x{slug(facts.gpus[0].name, 20)}" if facts.gpus else ""
    return f"{slug(facts.cpu_model)}-{facts.physical_cores}c-{memory_gib}g{gpus}"


def machine_of(facts: HostFacts, files: frozenset[str] = frozenset()) -> Machine:
    """What a plan needs of a machine's facts."""
    return Machine(
        physical_cores=facts.physical_cores,
        memory_bytes=facts.memory_bytes,
        gpu_memory_bytes=sum(gpu.memory_bytes for gpu in facts.gpus),
        disk_free_bytes=facts.disks[0].free_bytes if facts.disks else None,
        files=files,
    )


def ssh_servers(inventory: Path, price: Price | None = None) -> list[Server]:
    """The hosts of an inventory; ``benchctl_price`` there says what a host costs, else ``price`` does.

    Raises:
        UsageError: Ansible can't read it, or it has no host.
    """
    listed = _listed(inventory)
    variables: Mapping[str, Any] = listed.get("_meta", {}).get("hostvars", {})
    names = _members(listed, GROUP) or _members(listed, "all")
    if not names:
        raise UsageError(
            f"The inventory {inventory} has no host.", "Name hosts in its group 'bench'; inventories/example shows how."
        )
    servers = []
    for name in names:
        own = variables.get(name, {}).get("benchctl_price")
        servers.append(Server(SSH, name, name, None, parse_price(str(own)) if own else price))
    return servers


def _listed(inventory: Path) -> dict[str, Any]:
    from benchctl.content import content_root
    from benchctl.playbook import ansible_environment, require_ansible

    if not inventory.exists():
        raise UsageError(f"There is no inventory {inventory}.", "Give the path of an Ansible inventory.")
    environment = ansible_environment(content_root())
    program = Path(require_ansible(environment)).with_name("ansible-inventory")
    done = subprocess.run(
        [str(program), "-i", str(inventory.absolute()), "--list"],
        capture_output=True,
        text=True,
        env={**environment, "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1"},
        check=False,
        timeout=120,
    )
    try:
        found = json.loads(done.stdout)
    except ValueError:
        found = None
    if done.returncode != 0 or not isinstance(found, dict):
        said = " ".join(done.stderr.split())[-300:]
        raise UsageError(f"Ansible can't read the inventory {inventory}: {said}", "Correct it.")
    return found


def _members(listed: Mapping[str, Any], group: str) -> list[str]:
    """The hosts of a group and of the groups in it, in order, each once."""
    found: dict[str, None] = dict.fromkeys(listed.get(group, {}).get("hosts", ()))
    for child in listed.get(group, {}).get("children", ()):
        found |= dict.fromkeys(_members(listed, child))
    return list(found)


def _chosen(server: Server, patterns: Sequence[str]) -> bool:
    return not patterns or any(
        fnmatch.fnmatchcase(name.lower(), one.lower()) for one in patterns for name in (server.name, server.host)
    )
