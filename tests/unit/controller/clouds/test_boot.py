"""What a server does at its first boot: what is sent is what cloud-init and sh make of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from benchctl.clouds import boot
from benchctl.errors import BenchctlError
from emulation.cloudinit import interpret
from emulation.specs import instance_spec

HOSTILE = "x86; $(touch /tmp/owned)\n`id`: {{ lookup('pipe', 'id') }} 'quoted\" #"


def read(data: str) -> dict[str, object]:
    """As cloud-init reads it."""
    assert data.splitlines()[0] == "#cloud-config"
    return dict(yaml.safe_load(data))


def test_host_key_and_login_are_what_was_wanted() -> None:
    spec = instance_spec("hetzner", "cx22", "fsn1")
    config = read(boot.user_data(spec))
    assert config["ssh_deletekeys"] is True
    assert config["ssh_keys"] == {
        "ed25519_private": spec.host_key.private, "ed25519_public": spec.host_key.public
    }  # fmt: skip
    assert config["ssh_authorized_keys"] == [spec.ssh_public_key]
    assert config["disable_root"] is False, "root logs in at Hetzner"
    assert "bootcmd" not in config
    assert "write_files" not in config


def test_a_private_key_without_a_final_newline_gets_one() -> None:
    spec = instance_spec("hetzner", "cx22", "fsn1")
    bare = replace(spec, host_key=replace(spec.host_key, private=spec.host_key.private.strip()))
    assert boot.user_data(bare) == boot.user_data(spec)


@pytest.mark.parametrize(
    ("vendor", "image", "user"),
    [
        ("aws", "ubuntu-24.04", "ubuntu"),
        ("aws", "debian-12", "admin"),
        ("gcp", "ubuntu-24.04", "ubuntu"),
        ("gcp", "debian-12", "debian"),
        ("azure", "ubuntu-24.04", "ubuntu"),
        ("hetzner", "debian-12", "root"),
        ("upcloud", "ubuntu-24.04", "root"),
    ],
)
def test_who_logs_in(vendor: str, image: str, user: str) -> None:
    assert boot.login_user(vendor, image) == user


def test_google_s_guest_agent_is_told_to_make_no_host_keys() -> None:
    asked = interpret(boot.user_data(instance_spec("gcp", "n2-standard-2", "r"), google=True), "ubuntu")
    assert asked.files["/etc/default/instance_configs.cfg"] == "[InstanceSetup]\nset_host_keys = false\n"


def test_data_stays_data() -> None:
    spec = replace(instance_spec("aws", "c7g.large", "r"), ssh_public_key=f"ssh-ed25519 AAAA {HOSTILE}")
    config = read(boot.user_data(spec, shut_down=True))
    assert config["ssh_authorized_keys"] == [spec.ssh_public_key]
    assert set(config) == {"bootcmd", "runcmd", "ssh_deletekeys", "ssh_keys", "ssh_authorized_keys", "ssh_pwauth"}


def shell(command: list[str], programs: Path) -> None:
    """Run a command of cloud-init's where no program can be found that switches this machine off.

    What would do so only writes down that it was called; everything else is in the same folder, and PATH is nothing
    but that folder, also for what stays in the background.
    """
    programs.mkdir(exist_ok=True)
    for name in ("sh", "date", "sleep", "setsid"):
        if not (programs / name).exists():
            (programs / name).symlink_to(str(shutil.which(name)))
    for name in ("systemctl", "shutdown", "poweroff"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" > {programs}/{name}.called\n')
        (programs / name).chmod(0o755)
    subprocess.run(command, check=True, env={"PATH": str(programs)}, timeout=60)


def commands(expires_at: int, when: str) -> list[str]:
    config = read(
        boot.user_data(replace(instance_spec("aws", "c7g.large", "r"), expires_at=expires_at), shut_down=True)
    )
    (command,) = config[when]  # type: ignore[misc, attr-defined]
    return list(command)


def test_it_switches_itself_off_when_its_time_is_over(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    shell(commands(int(time.time()) - 1, "bootcmd"), programs)  # after a reboot, too late already
    deadline = time.monotonic() + 60
    while not (programs / "systemctl.called").exists() or not (programs / "systemctl.called").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (programs / "systemctl.called").read_text() == "systemctl poweroff\n"


def waiting_for(expires_at: int) -> list[int]:
    """The processes that wait for it and lead a group of their own; not the shells that they fork for a moment."""
    found = []
    for pid in [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()]:
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            if line.endswith(f"\0{boot.END}\0{expires_at}\0".encode()) and os.getpgid(pid) == pid:
                found.append(pid)
    return found


def test_it_waits_in_the_background_until_then(tmp_path: Path) -> None:
    expires = int(time.time()) + 7_777
    shell(commands(expires, "bootcmd"), tmp_path / "bin")
    deadline = time.monotonic() + 60
    while not (waiting := waiting_for(expires)):  # a group of its own: what started it may end
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for process in waiting:
        os.killpg(process, 9)
    assert len(waiting) == 1
    assert not (tmp_path / "bin" / "systemctl.called").exists()


@pytest.mark.parametrize(("left", "minutes"), [(3600, 66), (3601, 67), (61, 8), (1, 7)])
def test_the_system_s_own_shutdown_lets_people_in_until_the_end(tmp_path: Path, left: int, minutes: int) -> None:
    """It is told the minutes that are left and some more: in its last five systemd lets nobody in but root."""
    assert (minutes - 5) * 60 > left
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "date").write_text("#!/bin/sh\necho 1000000\n")
    (programs / "date").chmod(0o755)
    shell(commands(1_000_000 + left, "runcmd"), programs)
    assert (programs / "shutdown.called").read_text() == f"shutdown -P +{minutes}\n"


def test_the_script_for_images_without_cloud_init_holds_no_data_as_code() -> None:
    spec = instance_spec("gcp", "e2-standard-2", "r", image="debian-12")
    script = boot.startup_script(spec)
    assert "OPENSSH PRIVATE KEY" not in script
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0


@pytest.mark.parametrize(("vendor", "most"), [("aws", 16_384), ("hetzner", 32_768), ("azure", 49_152)])
def test_a_vendor_s_limit_is_kept(vendor: str, most: int) -> None:
    assert boot.checked(vendor, "x" * most) == "x" * most
    with pytest.raises(BenchctlError, match=vendor):
        boot.checked(vendor, "x" * (most + 1))


@pytest.mark.parametrize("vendor", ["aws", "azure", "gcp", "hetzner", "upcloud"])
def test_what_we_send_is_far_below_it(vendor: str) -> None:
    data = boot.user_data(instance_spec(vendor, "a", "b"), shut_down=True, google=True)
    assert len(data) < boot.LIMITS[vendor] / 4
