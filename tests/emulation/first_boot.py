"""Runs in the container behind an emulated server, before its sshd: does what the user data asked for."""

import json
import os
import pathlib
import subprocess
import sys


def run_script(script: str) -> None:
    """As the vendor's agent runs a start-up script; there is no systemd here, so that its command does nothing."""
    programs = pathlib.Path("/opt/no-systemd")
    programs.mkdir()
    (programs / "systemctl").write_text("#!/bin/sh\nexit 0\n")
    (programs / "systemctl").chmod(0o755)
    path = pathlib.Path("/opt/startup-script")
    path.write_text(script)
    path.chmod(0o700)
    subprocess.run([str(path)], check=True, env={"PATH": f"{programs}:{os.environ['PATH']}"})


def main() -> None:
    """Make the user, write the files, then become sshd."""
    wanted = json.loads(pathlib.Path(sys.argv[1]).read_text())
    user, home = wanted["user"], pathlib.Path("/root")
    if user != "root":
        home = pathlib.Path("/home") / user
        subprocess.run(["useradd", "-m", "-s", "/bin/bash", user], check=True)
        # a password that nobody knows; a locked account may not log in by key without PAM
        subprocess.run(["usermod", "-p", "*", user], check=True)
        sudoers = pathlib.Path("/etc/sudoers.d/90-cloud-init-users")
        sudoers.write_text(f"{user} ALL=(ALL) NOPASSWD:ALL\n")
        sudoers.chmod(0o440)
    ssh = home / ".ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    (ssh / "authorized_keys").write_text("\n".join(wanted["authorized_keys"]) + "\n")
    (ssh / "authorized_keys").chmod(0o600)
    if user != "root":
        subprocess.run(["chown", "-R", f"{user}:", str(ssh)], check=True)
    for name, content in wanted["files"].items():
        path = pathlib.Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o600 if name.endswith("_key") else 0o644)
    if not pathlib.Path("/etc/ssh/ssh_host_ed25519_key").exists():
        subprocess.run(["ssh-keygen", "-A"], check=True)
    if wanted["script"]:
        run_script(wanted["script"])
    # what would be run is kept to be read: a container can't be switched off by its own timer
    pathlib.Path("/var/lib/cloud-commands.json").write_text(json.dumps(wanted["commands"]))
    os.execv("/usr/sbin/sshd", ["/usr/sbin/sshd", "-D", "-e"])  # noqa: S606


main()
