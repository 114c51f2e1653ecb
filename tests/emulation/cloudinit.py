"""User data, as cloud-init reads it: the few modules that our user data uses. What it ignores, this ignores.

Sources: cloud-init's documentation of the modules ssh, write-files, bootcmd and runcmd
(https://cloudinit.readthedocs.io/en/latest/reference/modules.html).
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

HEADER = "#cloud-config"


@dataclass(frozen=True)
class Boot:
    """What a server does at its first boot.

    Attributes:
        user: who may log in.
        authorized_keys: with which keys.
        files: path to content; the host key among them.
        commands: what would be run, in order: a list, or text for a shell.
        script: what root runs at every boot, of images without cloud-init.
    """

    user: str
    authorized_keys: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    commands: tuple[list[str] | str, ...] = ()
    script: str = ""

    def document(self) -> dict[str, Any]:
        """As JSON, for the program in the container."""
        return {
            "user": self.user,
            "authorized_keys": list(self.authorized_keys),
            "files": self.files,
            "commands": list(self.commands),
            "script": self.script,
        }


def interpret(user_data: str, user: str, keys: tuple[str, ...] = ()) -> Boot:
    """Read user data.

    Args:
        user_data: as it came to the metadata service, already decoded.
        user: the image's default user.
        keys: keys that the vendor gives the default user by itself.

    Returns:
        What it asks for. User data that does not start with ``#cloud-config``, or is no mapping, asks for nothing:
        cloud-init logs a warning and boots.
    """
    import yaml

    files: dict[str, str] = {}
    if user_data.split("\n", 1)[0].strip() != HEADER:
        return Boot(user, keys)
    try:
        config = yaml.safe_load(user_data)
    except yaml.YAMLError:
        return Boot(user, keys)
    if not isinstance(config, dict):
        return Boot(user, keys)
    for kind, content in (config.get("ssh_keys") or {}).items():
        algorithm, _, half = str(kind).partition("_")
        path = f"/etc/ssh/ssh_host_{algorithm}_key"
        files[path if half == "private" else f"{path}.pub"] = str(content)
    for one in config.get("write_files") or []:
        content = str(one.get("content", ""))
        if one.get("encoding") in ("b64", "base64"):
            content = base64.b64decode(content).decode()
        files[str(one["path"])] = content
    commands = [
        [str(part) for part in command] if isinstance(command, list) else str(command)
        for command in [*(config.get("bootcmd") or []), *(config.get("runcmd") or [])]
    ]
    if user == "root" and config.get("disable_root", True) and config.get("ssh_authorized_keys"):
        # cc_ssh: root's keys are then only good to read who to log in as instead
        extra: tuple[str, ...] = ()
    else:
        extra = tuple(str(key) for key in config.get("ssh_authorized_keys") or ())
    return Boot(user, tuple(dict.fromkeys((*keys, *extra))), files, tuple(commands))
