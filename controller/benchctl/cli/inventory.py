"""``benchctl inventory``: the rented servers that are alive, for Ansible and for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchctl.home import Home
    from benchctl.inventory import Group


@click.command()
@click.option("--list", "as_list", is_flag=True, help="Everything as JSON, as Ansible wants it of a script (default).")
@click.option("--host", metavar="NAME", help="The variables of one server as JSON.")
@click.option("--graph", is_flag=True, help="The groups, with the servers in them.")
@click.pass_obj
def inventory(home: Home, as_list: bool, host: str | None, graph: bool) -> None:
    """The rented servers that are alive now, as an inventory for Ansible.

    They are read from the books of the sweeps; no vendor is asked. A script of the line 'exec benchctl inventory "$@"'
    is an inventory for any Ansible; 'benchctl playbook' and the checkout's ansible.cfg know them already:
    'benchctl playbook bench -l g2-standard-4'.
    """
    from benchctl.inventory import as_data, groups_of, inventory_of, read_live

    if sum((as_list, host is not None, graph)) > 1:
        raise UsageError("--list, --host and --graph exclude each other.", "Give one of them.")
    alive = read_live(home)
    for problem in alive.problems:
        click.echo(f"benchctl: {problem}", err=True)
    if graph:
        click.echo("\n".join(_tree("bench", groups_of(alive.servers, alive.sweeps))))
        return
    if host is None:
        click.echo(json.dumps(inventory_of(alive.servers, alive.sweeps), indent=1))
        return
    found = next((one for one in alive.servers if one.job.host == host), None)
    if found is None:
        known = ", ".join(one.job.host for one in alive.servers)
        raise UsageError(
            f"No server '{host}' is alive.", f"Alive are: {known}." if known else "Nothing that was rented is alive."
        )
    click.echo(json.dumps(as_data({**alive.sweeps.get(found.sweep, {}), **found.variables}), indent=1))


def _tree(top: str, groups: Mapping[str, Group]) -> list[str]:
    """The groups as ``ansible-inventory --graph`` shows them, the top ones side by side."""
    inner = {child for group in groups.values() for child in group.children}
    lines = ["@all:"]

    def add(name: str, depth: int) -> None:
        lines.append(f"{'  |' * depth}--@{name}:")
        group = groups[name]
        for child in group.children:
            add(child, depth + 1)
        lines.extend(f"{'  |' * (depth + 1)}--{host}" for host in group.hosts)

    for name in sorted(groups, key=lambda one: (one != top, one)):
        if name not in inner:
            add(name, 1)
    return lines
