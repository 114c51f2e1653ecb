"""``benchctl playbook``: the carried playbooks, run by Ansible itself."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from benchctl.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchctl.home import Home


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name", required=False)
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[ANSIBLE OPTIONS]...")
@click.pass_obj
def playbook(home: Home, name: str | None, options: tuple[str, ...]) -> None:
    """Run a carried playbook with ansible-playbook, from any folder.

    Without a NAME the playbooks are listed. What follows the name goes to ansible-playbook as it is: for example
    'benchctl playbook bench -i hosts.yml -e llama_bench_suite=default'. Without -i the host is this machine, or what
    -l names of the rented servers that are alive: 'benchctl playbook bench -l g2-standard-4'.
    """
    from benchctl.content import content_root
    from benchctl.playbook import ansible_environment, require_ansible

    content = content_root()
    known = {path.stem: path for path in sorted((content / "playbooks").glob("*.yml"))}
    if name is None:
        for one, path in known.items():
            click.echo(f"{one:<10}{_about(path.read_text())}")
        return
    if name not in known:
        import difflib

        near = difflib.get_close_matches(name, known, n=1)
        mend = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(known)}."
        raise UsageError(f"There is no playbook '{name}'.", mend)
    ours = ansible_environment(content)
    program = require_ansible(ours)
    sys.stdout.flush()
    os.execve(program, [program, str(known[name]), *options], _environment(ours, os.environ, home))  # noqa: S606


def _environment(ours: Mapping[str, str], users: Mapping[str, str], home: Home) -> dict[str, str]:
    """The user's own environment, with the paths of the carried content; the user's own Ansible settings win."""
    needed = ("PATH", "ANSIBLE_LIBRARY", "ANSIBLE_MODULE_UTILS", "ANSIBLE_ROLES_PATH", "ANSIBLE_INVENTORY_PLUGINS")
    where = {"BENCHCTL_HOME": str(home.state), "BENCHCTL_CACHE": str(home.cache)}
    return {"ANSIBLE_CONFIG": ours["ANSIBLE_CONFIG"], **users, **{key: ours[key] for key in needed}, **where}


def _about(text: str) -> str:
    """A playbook's first sentence."""
    lines = [line[1:].strip() for line in text.splitlines() if line.startswith("#")]
    return " ".join(lines).split(". ")[0].rstrip(".") + "."
