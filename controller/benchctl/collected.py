"""What a playbook fetched from one host, put into the lake as a sweep would: ``python -m benchctl.collected FOLDER``.

The role ``llama_bench`` runs it on the controller when ``llama_bench_lake`` is set. FOLDER holds the host's
``journal.jsonl`` and ``stderr``; what else the lake wants to know stands as JSON on the standard input. Putting the
same results there twice changes nothing; a journal of other results is refused. Times come from the journal, not from
the clock of now. Without FOLDER it says whether anything is to be fetched at all: what a sweep collects is its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_bench_core import state
from llama_bench_core.host import HostFacts

from benchctl import __version__, lake
from benchctl.errors import BenchctlError
from benchctl.plan import parse_price, slug
from benchctl.request import LOCAL, SSH
from benchctl.servers import machine_name

if TYPE_CHECKING:
    from collections.abc import Mapping

EXIT_CODES = {"finished": 0, "failed": 1, "stopped": 2}


def collect(fetched: Path, given: Mapping[str, Any]) -> tuple[bool, str]:
    """Put one host's results into the lake.

    Args:
        fetched: the folder that holds ``journal.jsonl`` and ``stderr``.
        given: what the role says: ``lake``, ``sweep``, ``job``, ``host``, ``vendor``, ``server``, ``replica``,
            ``region``, ``zone``, ``price``, ``facts``, ``suite``, ``models``, ``weights``, ``state_name``, ``local``.

    Returns:
        Whether the lake was changed, and a sentence for a person.

    Raises:
        BenchctlError: the lake holds other results under the same name, or can't be written.
    """
    journal = fetched / state.JOURNAL
    if not journal.is_file():
        return False, f"Nothing was measured on {given['host']}."
    root, sweep = _place(given)
    facts = dict(given["facts"])
    vendor = given["vendor"] or (LOCAL if given["local"] else SSH)
    server = given["server"] or (machine_name(HostFacts.from_dict(facts)) if given["local"] else given["host"])
    folder = lake.run_folder(root, sweep, vendor, server, int(given["replica"]))

    before = (lake.journal_offset(folder), lake.stderr_offset(folder), _meta(folder))
    text = journal.read_bytes().decode(errors="replace")
    whole = text[: text.rfind("\n") + 1]
    lake.append_journal(folder, 0, whole)
    said = fetched / state.STDERR
    if said.is_file():
        _append_stderr(folder, said.read_bytes())
    lake.rebuild_stdout(folder)
    if not (folder / lake.FACTS).is_file():
        lake.write_facts(folder, facts)
    first, last = _ends(whole)
    about = _about(given, sweep, vendor, server, first.get("at"))
    meta = lake.RunMeta(
        start=first.get("at"),
        end=last.get("at") if last.get("kind") == "end" else None,
        exit_code=EXIT_CODES.get(str(last.get("status")), -1) if last.get("kind") == "end" else -1,
        error_msg=str(last.get("message") or "") or None,
        version=f"benchctl {__version__}",
        # what the sweep itself wrote of this run knows more: its request, the price at launch
        benchctl=(before[2] or {}).get("benchctl") or about,
    )
    lake.write_meta(folder, meta)
    changed = before != (lake.journal_offset(folder), lake.stderr_offset(folder), _meta(folder))
    return changed, f"The results of {given['host']} are in {folder}: 'benchctl ingest {folder}' reads them."


def others_task(given: Mapping[str, Any]) -> str:
    """Why nothing is to be fetched from a host, as a sentence; empty when it is."""
    root, sweep = _place(given)
    if state.is_locked(root.parent / "sweeps" / sweep / "lock"):
        return f"The sweep {sweep} is under way, and collects the results of {given['host']} itself."
    return ""


def _place(given: Mapping[str, Any]) -> tuple[Path, str]:
    """The lake and the sweep in it; without a sweep one that is called after what is measured."""
    sweep = given["sweep"] or slug(f"ansible-{given['state_name']}", 60)
    return Path(given["lake"]).expanduser().absolute(), sweep


def _append_stderr(folder: Path, content: bytes) -> None:
    here = lake.stderr_offset(folder)
    lake.append_stderr(folder, here, content[here:].decode(errors="replace"), len(content))


def _ends(journal: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first and the last record of a journal."""
    lines = journal.splitlines()
    try:
        return (json.loads(lines[0]), json.loads(lines[-1])) if lines else ({}, {})
    except ValueError:
        return {}, {}


def _meta(folder: Path) -> dict[str, Any] | None:
    try:
        found = json.loads((folder / lake.META).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _about(given: Mapping[str, Any], sweep: str, vendor: str, server: str, began: str | None) -> dict[str, Any]:
    """Our part of ``meta.json``, with the same keys as a sweep writes."""
    price = parse_price(str(given["price"])) if given["price"] else None
    suite = given["suite"]
    return {
        "sweep": sweep,
        "job": given["job"] or slug(given["host"]),
        "vendor": vendor,
        "server": server,
        "api_reference": server,
        "replica": int(given["replica"]),
        "suite": suite.get("name"),
        "weights": given["weights"],
        "price_usd_per_hour": price.usd_per_hour if price else None,
        "price_per_hour": price.per_hour if price else None,
        "currency": price.currency if price else None,
        "region": given["region"] or None,
        "zone": given["zone"] or None,
        "created_at": began,
        "models": {one["name"]: one["file"] for one in given["models"]},
        "request": {"vendors": [vendor], "weights": given["weights"], "suite": suite},
    }


def main() -> None:
    """What the role runs: JSON on the standard input, JSON on the standard output."""
    given = json.load(sys.stdin)
    try:
        changed, said = collect(Path(sys.argv[1]), given) if len(sys.argv) > 1 else (False, others_task(given))
    except BenchctlError as error:
        sys.exit(str(error))
    json.dump({"changed": changed, "said": said}, sys.stdout)


if __name__ == "__main__":
    main()
