"""The rented servers that are alive now, as an inventory for Ansible.

Read from the books of the sweeps alone: no database, no vendor's API, so that it costs a few milliseconds. What the
vendors list is another question (``benchctl reap --dry-run``).

All that comes from a catalogue (server types, regions) is data. As a variable it is handed to Ansible marked so
(:func:`as_data`), and is never taken for a template; as the name of a group it is spelled as the vendor spells it, but
for characters that mean something in a pattern or a template (:func:`group_name`).
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from benchctl.clouds.cloud import VENDOR_IDS
from benchctl.clouds.spec import ARM64, X86_64
from benchctl.errors import BenchctlError
from benchctl.ledger import DESTROYING, GONE, PLANNED, PROVISIONING, jobs_of, read_book, sweep_names
from benchctl.rented_plan import session_left
from benchctl.request import VENDORS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from benchctl.home import Home
    from benchctl.ledger import JobState

BENCH = "bench"
"""The group that the playbooks measure."""

RENTED = "rented"
"""The group of all rented servers that are alive; a child of :data:`BENCH`."""

GPU, CPU = "gpu", "cpu"

REMOTE_HOME = "~/.local/share/llama_bench"
"""Where the role ``llama_bench`` keeps everything on a server, for the user that the tasks run as."""

PYTHON = "/usr/bin/python3"
"""Python on the images that are booted; named, so that nothing is looked for and nothing is warned of."""

_RESERVED = frozenset(
    {"all", "ungrouped", "localhost", BENCH, RENTED, GPU, CPU, X86_64, ARM64, *VENDORS, *VENDOR_IDS.values()}
)
"""Names of groups with a meaning of their own; a region or a server type that is called so gets no group."""

_UNSAFE = "__ansible_unsafe"
"""How Ansible's JSON says of a text that it is no template."""

_TEMPLATE = re.compile(r"\{[{%#]")


@dataclass(frozen=True)
class Live:
    """One rented server that is alive and can be reached.

    Attributes:
        sweep: its sweep.
        job: its job.
        variables: Ansible's variables of it, plain; see :func:`variables_of`.
    """

    sweep: str
    job: JobState
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Alive:
    """Everything that is alive.

    Attributes:
        servers: the servers, those of the oldest sweep first.
        sweeps: for each sweep among them what its playbooks are to measure; see :func:`sweep_variables`.
        problems: a sentence for each book that can't be read.
    """

    servers: tuple[Live, ...] = ()
    sweeps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Group:
    """One group of the inventory.

    Attributes:
        hosts: the hosts that are in it directly.
        children: the groups in it.
        variables: what holds for all of its hosts, plain.
    """

    hosts: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)


def reachable(job: JobState, now: datetime) -> bool:
    """Whether work can be given to a job's server: it is alive and let us in, and its time is not up.

    One that is past its expiry is left out: the cloud may have ended it, and its address may be somebody else's.
    """
    if not job.alive or not job.address or not job.host_key or job.stage in (PLANNED, PROVISIONING, DESTROYING, GONE):
        return False
    return job.expires_at is None or datetime.fromisoformat(job.expires_at) > now


def read_live(home: Home, now: datetime | None = None) -> Alive:
    """Everything that is alive, from the books of all sweeps; expiries are compared with ``now``."""
    moment = now or datetime.now(UTC)
    found: list[Live] = []
    problems: list[str] = []
    sweeps: dict[str, dict[str, Any]] = {}
    for sweep in sweep_names(home):
        try:
            book = read_book(home, sweep)
            jobs = [job for job in jobs_of(book) if reachable(job, moment)]
        except BenchctlError as error:
            problems.append(str(error))
            continue
        except (TypeError, ValueError, AttributeError) as error:
            problems.append(f"The book of the sweep {sweep} is damaged: {error}.")
            continue
        if jobs:
            sweeps[sweep] = sweep_variables(home, book.get("request") or {})
        request = book.get("request") or {}
        for job in jobs:
            try:
                write_known_hosts(home.state, sweep, job)
            except BenchctlError as error:
                problems.append(str(error))
            variables = {**variables_of(home.state, sweep, job), **binary_variables(home, request, job)}
            found.append(Live(sweep, job, variables))
    return Alive(tuple(found), sweeps, tuple(problems))


# ── the variables ───────────────────────────────────────────────────────────────────────────────────────────────────


def private_key(state: Path, sweep: str) -> Path:
    """The private key of a sweep, which logs in on all its servers."""
    return state / "sweeps" / sweep / "keys" / "id_ed25519"


def known_hosts(state: Path, sweep: str, host: str) -> Path:
    """The file that holds the host key of one instance, and no other.

    One file per instance: what is in it follows from its job alone, so that processes that write it at once write the
    same, and a new server at an old address is not taken for the old one.
    """
    return state / "sweeps" / sweep / "keys" / f"{host}.known_hosts"


def write_known_hosts(state: Path, sweep: str, job: JobState) -> Path:
    """Write :func:`known_hosts` of a job whose server is known, unless it is there.

    Raises:
        BenchctlError: it can't be written.
    """
    path = known_hosts(state, sweep, job.host)
    place = job.address if job.port == 22 else f"[{job.address}]:{job.port}"
    line = f"{place} {job.host_key}\n"
    try:
        if path.is_file() and path.read_text() == line:
            return path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        draft.write_text(line)
        draft.replace(path)
    except OSError as error:
        raise BenchctlError(
            f"{path} can't be written: {error.strerror}.", "Free some space there, or choose another --state-dir."
        ) from error
    return path


def host_variables(state: Path, sweep: str, job: JobState) -> dict[str, Any]:
    """What Ansible needs to know of one rented server, fit for a JSON inventory; its host key is written down first.

    Raises:
        BenchctlError: the host key can't be written.
    """
    write_known_hosts(state, sweep, job)
    marked = as_data(variables_of(state, sweep, job))
    assert isinstance(marked, dict)  # noqa: S101 - a mapping stays one
    return marked


def variables_of(state: Path, sweep: str, job: JobState) -> dict[str, Any]:
    """Ansible's variables of one rented server, plain. Pure.

    How it is reached, where its measurement lies, and what it is: ``benchctl_*``. Private keys are named by their path;
    there is no secret among them.
    """
    options = {
        "UserKnownHostsFile": _quoted(known_hosts(state, sweep, job.host)),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes",
        # without these a host that is cut off in mid-task hangs Ansible for ever
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "2",
    }
    mark = hashlib.sha256(f"{job.host} {job.address} {job.port} {job.host_key}".encode()).hexdigest()[:16]
    variables: dict[str, Any] = {
        "ansible_connection": "ssh",
        "ansible_host": job.address,
        "ansible_port": job.port,
        "ansible_user": job.user or "root",
        "ansible_ssh_private_key_file": str(private_key(state, sweep)),
        "ansible_ssh_common_args": " ".join(f"-o {_word(f'{key}={value}')}" for key, value in options.items()),
        # One socket per instance: a new server at an old address never meets the old one's. Short, because a socket's
        # path may have 107 characters; Ansible makes the folder.
        "ansible_control_path": f"%(directory)s/{mark}",
        "ansible_python_interpreter": PYTHON,
        "llama_bench_state_dir": f"{REMOTE_HOME}/state/{sweep}",
        "llama_bench_sweep": sweep,
        "llama_bench_job": job.job,
        "llama_bench_session_seconds": session_left(job, datetime.now(UTC)),
        "benchctl_sweep": sweep,
        "benchctl_job": job.job,
        "benchctl_stage": job.stage,
        "benchctl_vendor": job.vendor,
        "benchctl_server": job.server,
        "benchctl_replica": job.replica,
        "benchctl_region": job.region,
        "benchctl_zone": job.zone,
        "benchctl_architecture": job.architecture,
        "benchctl_gpus": job.gpus,
        "benchctl_allocation": job.allocation,
        "benchctl_launched_at": job.launched_at or "",
        "benchctl_expires_at": job.expires_at or "",
    }
    if variables["ansible_user"] != "root":
        variables["ansible_become"] = True
    if job.price_per_hour is not None:
        variables["benchctl_price"] = f"{job.price_per_hour:g}{job.currency or 'USD'}/h"
    return variables


def sweep_variables(home: Home, request: Mapping[str, Any]) -> dict[str, Any]:
    """What a sweep measures, as variables of the role ``llama_bench``, from its request as the book keeps it.

    The same values that the sweep itself hands to Ansible, so that a playbook alone measures the same.
    """
    variables: dict[str, Any] = {
        "llama_bench_suite": request.get("suite") or {},
        "llama_bench_models": request.get("models") or [],
        "llama_bench_weights": request.get("weights") or "auto",
        "llama_bench_connections": request.get("connections") or 4,
        "llama_bench_device": request.get("device") or "auto",
        "llama_bench_lake": str(home.lake),
    }
    if request.get("threads"):
        variables["llama_bench_threads"] = request["threads"]
    # an address with a password stays where it is: an inventory is printed by 'ansible-inventory --list'
    mirror = request.get("mirror") or ""
    if mirror and "@" not in urlsplit(mirror).netloc:
        variables["llama_bench_mirror"] = mirror
    return variables


def binary_variables(home: Home, request: Mapping[str, Any], job: JobState) -> dict[str, Any]:
    """Which llama-bench a job's server gets: the one that the sweep was asked to take, or this machine's build."""
    source = str(Path(request["llama_bench"]).absolute()) if request.get("llama_bench") else ""
    if not source and not request.get("recorded") and job.architecture in ("", _own_architecture()):
        from benchctl.engine.build import cached

        built = cached(home.cache)
        source = str(built) if built else ""
    # without a source it is the one that the sweep has put there; a replayed one always is
    return {"llama_bench_source": source, "llama_bench_binary": f"{REMOTE_HOME}/bin/llama-bench"}


def _own_architecture() -> str:
    machine = platform.machine()
    return ARM64 if machine == "aarch64" else machine


def _quoted(path: Path) -> str:
    """A path as ssh's options take it: quoted, and no percent sign of it a token."""
    return f'"{str(path).replace("%", "%%")}"'


def _word(text: str) -> str:
    """One word of ``ansible_ssh_common_args``, which Ansible splits as a shell does."""
    return "'" + text.replace("'", "'\"'\"'") + "'" if re.search(r"[^\w@%+=:,./-]", text) else text


def as_data(value: Any) -> Any:
    """``value`` with every text in it that looks like a template marked as data, for Ansible's JSON inventories."""
    if isinstance(value, str):
        return {_UNSAFE: value} if _TEMPLATE.search(value) else value
    if isinstance(value, dict):
        return {key: as_data(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_data(one) for one in value]
    return value


# ── the groups ──────────────────────────────────────────────────────────────────────────────────────────────────────


def group_name(text: str) -> str:
    """``text`` as the name of a group: as it is spelled, but for characters that patterns or templates use."""
    plain = re.sub(r"[^\w.+-]", "_", text, flags=re.ASCII)
    # a leading hyphen would be taken for an option after -l, a leading tilde is replaced already
    return re.sub(r"^[.+-]+", "_", plain) or "_"


def vendor_name(vendor: str) -> str:
    """A vendor as the command line calls it, from what the database calls it."""
    return next((ours for ours, theirs in VENDOR_IDS.items() if theirs == vendor), vendor)


def groups_of(live: Iterable[Live], sweeps: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Group]:
    """The groups of some servers, by name.

    ``bench`` with ``rented`` in it; vendors with their ``VENDOR_TYPE``; regions with their zones; server types;
    architectures; ``gpu`` and ``cpu``; sweeps, which carry what they measure. A name that has another meaning already
    (of Ansible's own, of a host, of a region) makes no second group: ``VENDOR_TYPE`` names the type then.

    Args:
        live: the servers.
        sweeps: variables of each sweep.
    """
    servers = list(live)
    made = _Groups({"all", "ungrouped", "localhost", *(one.job.host for one in servers)})
    for one in servers:
        job, vendor = one.job, vendor_name(one.job.vendor)
        for fixed in (RENTED, one.sweep, GPU if job.gpus else CPU, group_name(job.architecture), vendor):
            made.add("fixed", fixed, job.host)
        if job.vendor != vendor:
            made.nest(job.vendor, vendor)
    made.reserve("fixed", _RESERVED)
    for one in servers:
        job = one.job
        region = group_name(job.region)
        inner = zone_group(job.region, job.zone)
        if made.add("place", region, job.host) and inner and made.add("place", inner, job.host):
            made.nest(region, inner)
    for one in servers:
        job, vendor = one.job, vendor_name(one.job.vendor)
        name = group_name(f"{vendor}_{job.server}")
        if made.add("vendor's type", name, job.host):
            made.nest(vendor, name)
    for one in servers:
        made.add("type", group_name(one.job.server), one.job.host)
    made.nest(BENCH, RENTED)
    return made.groups(sweeps or {})


def zone_group(region: str, zone: str) -> str:
    """The name of a zone's group, which begins with its region's: a vendor's zones may be called ``1`` everywhere."""
    if not zone or zone == region:
        return ""
    name = group_name(zone)
    return name if name.startswith(group_name(region)) else f"{group_name(region)}-{name}"


class _Groups:
    """Groups under way: each name has one meaning, that of the kind that took it first."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._kinds: dict[str, str] = dict.fromkeys(taken, "host")
        self._hosts: dict[str, dict[str, None]] = {}
        self._children: dict[str, dict[str, None]] = {}

    def reserve(self, kind: str, names: Iterable[str]) -> None:
        for name in names:
            self._kinds.setdefault(name, kind)

    def add(self, kind: str, name: str, host: str) -> bool:
        """Put a host into a group; false where the name has another meaning."""
        if not name or self._kinds.setdefault(name, kind) != kind:
            return False
        self._hosts.setdefault(name, {})[host] = None
        return True

    def nest(self, parent: str, child: str) -> None:
        """Put a group into another, whose hosts it has anyway."""
        self._children.setdefault(parent, {})[child] = None

    def groups(self, variables: Mapping[str, Mapping[str, Any]]) -> dict[str, Group]:
        """All groups; a host that is in a child is not named in its parent again."""
        found = {}
        for name in sorted({*self._hosts, *self._children, RENTED}):
            children = tuple(sorted(self._children.get(name, ())))
            inside = {host for child in children for host in self._hosts.get(child, ())}
            hosts = tuple(host for host in self._hosts.get(name, ()) if host not in inside)
            found[name] = Group(hosts, children, dict(variables.get(name, {})))
        return found


def inventory_of(
    live: Iterable[Live], sweeps: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, dict[str, Any]]:
    """Some servers as Ansible takes an inventory from a script (``--list``).

    Args:
        live: the servers.
        sweeps: variables of each sweep.
    """
    servers = list(live)
    listed: dict[str, dict[str, Any]] = {
        "_meta": {"hostvars": {one.job.host: as_data(dict(one.variables)) for one in servers}}
    }
    for name, group in groups_of(servers, sweeps).items():
        entry: dict[str, Any] = {"hosts": list(group.hosts)}
        if group.children:
            entry["children"] = list(group.children)
        if group.variables:
            entry["vars"] = as_data(dict(group.variables))
        listed[name] = entry
    return listed
