"""Names that come from a catalogue are text: nothing in them is run, filled in, or leads out of a folder.

A whole sweep over an emulated cloud that has server types of such names, with the real engine, SSH and Ansible.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import catalog_files as files
import pytest
import sweeping
from lab.podman import LABEL, owner, podman

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchctl.home import Home
    from emulation.fixtures import Emulated

    Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.timeout(1500)  # longer than what is waited for inside, which says more

MARK = f"benchctl-was-run-{secrets.token_hex(4)}"
"""The file that would appear in somebody's home if a name were run."""

SHELL = f"$(cd;touch {MARK}-shell)`cd;touch {MARK}-ticks`;cd;touch {MARK}-semicolon #"
TEMPLATE = f"{{{{ lookup('pipe', 'cd;touch {MARK}-template') }}}}{{% raw %}}"
QUOTES = f"a\"b'c: [d, {{e: !!python.name:os.system ['cd;touch {MARK}-yaml']}}] & %s -o --limit=all,localhost"
OUTSIDE = f"../../../{MARK}-outside"
LINES = f"cx\n- name: x\n  shell: cd;touch {MARK}-lines"
LONG = "x" * 300

HOME = "/root/.local/share/llama_bench"
"""Where everything of ours lies on a server."""

MEASURED = (SHELL, TEMPLATE, QUOTES)
PLAN = f"2xCPU;$(cd;touch {MARK}-plan);{{{{ lookup('pipe', 'cd;touch {MARK}-plan2') }}}}"
"""What UpCloud calls a server type."""
LEFT_OUT = (OUTSIDE, LINES, LONG)
REGION = f"{{{{ lookup('pipe', 'cd;touch {MARK}-region') }}}};cd;touch {MARK}-region2 #/../../fsn1"


@pytest.fixture
def nothing_was_run() -> Iterator[None]:
    """Nothing of these names was run as a command, anywhere on this machine where a command would leave its mark."""
    yield
    places = {Path.home(), Path.cwd(), Path("/"), Path("/root")}
    marks = [path for place in places for path in place.glob(f"{MARK}*")]
    for path in marks:
        path.unlink()
    assert marks == []


class Servers(sweeping.Watcher):
    """Looks into all emulated servers for the marks, again and again, in a thread: they go before the sweep ends.

    Attributes:
        looked_into: the servers, and how often each was looked into after its measurement had begun.
        marked: what was found in one.
    """

    def __init__(self) -> None:
        self.looked_into: dict[str, int] = {}
        self.marked: list[str] = []
        super().__init__(0.3)

    def look(self) -> None:
        """See :class:`sweeping.Watcher`."""
        ours = ("--filter", f"label={LABEL}={owner()}")
        for name in (podman("ps", "--format", "{{.Names}}", *ours, check=False) or "").split():
            # nothing is said of one that went meanwhile, and of a journal that is not there yet
            listed = podman("exec", name, "sh", "-c", f"ls / /root {HOME}/state/*/journal.jsonl", check=False)
            if listed:
                self.looked_into[name] = self.looked_into.get(name, 0) + ("/journal.jsonl" in listed)
                self.marked += [f"{line} in {name}" for line in listed.splitlines() if MARK in line]


def write_catalogue(benchctl: Run, folder: Path) -> None:
    """A catalogue of these names, and of an honest server in a region of such a name."""
    names = (*MEASURED, *LEFT_OUT, "cx22")
    kinds: tuple[files.Kind, ...] = tuple(
        files.Kind("hcloud", name, 2, 4, family="cx", identifier=str(300 + at)) for at, name in enumerate(names)
    )
    regions = (("hcloud", "9", REGION, REGION, "[]"), ("upcloud", "fi-hel1", "fi-hel1", "Helsinki", "[]"))
    prices = [
        ("hcloud", "9" if kind.name == "cx22" else "4", "", kind.server_id, "ONDEMAND", 0.0066, "EUR") for kind in kinds
    ]
    kinds = (*kinds, files.Kind("upcloud", PLAN, 2, 4))
    prices.append(("upcloud", "fi-hel1", "fi-hel1", PLAN, "ONDEMAND", 0.03, "EUR"))
    files.write_database(
        folder / "catalogue.db", kinds, vendors=("hcloud", "upcloud"), regions=(*files.REGIONS[3:], *regions),
        zones=(("upcloud", "fi-hel1", "fi-hel1", "fi-hel1"),), prices=tuple(prices),
    )  # fmt: skip
    benchctl("catalog", "import", folder / "catalogue.db", check=True)


@pytest.mark.usefixtures("nothing_was_run")
def test_names_of_a_catalogue_are_text(
    benchctl: Run, home: Home, backed_world: Emulated, tmp_path: Path, checkout: Path
) -> None:
    """Types with such names are measured under them, those that no folder can have left out, a region is refused."""
    write_catalogue(benchctl, tmp_path)
    for name in MEASURED:
        backed_world.offer("hetzner", name)
    backed_world.offer("upcloud", PLAN)
    suite = sweeping.write_suite(tmp_path, "some", "{pp: {16: 0.01}}")
    paced = sweeping.write_paced_llama_bench(tmp_path / "llama-bench", {"pp16": 10.0})
    wanted = ("--vendors", "hetzner,upcloud", "--suite", str(suite), "--weights", "synthetic")
    plan = benchctl("plan", *wanted)
    assert plan.returncode == 0, plan.stderr
    assert "can't be the name of a folder" in plan.stdout

    sweep = sweeping.Running(
        home, {**os.environ, **backed_world.environment},
        ("sweep", *wanted, *sweeping.SYNTHETIC, "--llama-bench", str(paced), "--concurrency", "8", "--per-vendor", "8"),
        tmp_path, checkout,
    )  # fmt: skip
    with Servers() as servers:
        try:
            sweep.until("Measuring on")
            graph = subprocess.run(
                [str(checkout / ".venv/bin/ansible-inventory"), "--graph", "--vars"], cwd=checkout, capture_output=True,
                env={**os.environ, "BENCHCTL_HOME": str(home.state)}, text=True, check=False,
            )  # fmt: skip
            assert graph.returncode == 0, graph.stderr
            status = sweep.wait()
        finally:
            sweep.kill()
    said = sweep.said()
    assert status == 3, said
    assert "Traceback" not in said
    assert "1 of 5 jobs did not end well" in said, said
    assert backed_world.alive() == [], said
    assert servers.marked == []
    assert len(servers.looked_into) == len(MEASURED) + 1, servers.looked_into
    assert all(servers.looked_into.values()), servers.looked_into
    found = sweeping.rows(benchctl, "SELECT api_reference, status, region, error FROM job")
    assert {one["api_reference"]: one["status"] for one in found} == {
        **dict.fromkeys((*MEASURED, PLAN), "finished"), "cx22": "failed",
    }  # fmt: skip
    assert {one["region"] for one in found} == {"fsn1", "fi-hel1", REGION}
    [refused] = [one["error"] for one in found if one["status"] == "failed"]
    assert f"location '{REGION}' not found" in refused
    assert sweeping.rows(benchctl, "SELECT count(*) AS n FROM measurement WHERE outcome = 'ok'") == [{"n": 4}]
    # what was written lies in the lake, and nothing outside
    lake = next(home.lake.iterdir()) / "data"
    assert sorted(one.name for one in (lake / "hcloud").iterdir()) == sorted((*MEASURED, "cx22"))
    assert [one.name for one in (lake / "upcloud").iterdir()] == [PLAN]
    assert list(tmp_path.rglob(f"{MARK}*")) == []
