"""One run of ansible-runner in a process of its own; :mod:`benchctl.playbook` starts it and hears what it says.

ansible-runner forks, and Python code runs between its fork and the start of Ansible. A process with the threads of
Pulumi's SDK (gRPC's among them) must not do that: the child may wait for ever for a lock that no thread of it will
open. So the fork happens here, where nobody else holds one.

Standard input: one line of JSON, what to run; then it stays open. When it is closed (the user has had enough, or
whoever started this is dead) the run is cancelled. Standard output: a line of JSON for each event, and one for the end.
Imports ansible-runner and the standard library alone, so that it starts in a tenth of a second.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any


def main() -> None:
    """Run what standard input asks for."""
    asked = json.loads(sys.stdin.readline())
    over = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=(over,), daemon=True).start()

    from ansible_runner.config.runner import RunnerConfig
    from ansible_runner.runner import Runner

    # no cache of facts: it is one more thing on the disk, and nothing reads it
    config = RunnerConfig(
        **asked["config"], quiet=True, suppress_env_files=True, rotate_artifacts=0, fact_cache_type=""
    )
    config.prepare()
    config.env = {
        **{name: config.env[name] for name in asked["runners_own"] if name in config.env},
        **asked["environment"],
    }
    _say({"artifacts": str(Path(config.artifact_dir))})
    runner = Runner(config=config, event_handler=_event, cancel_callback=over.is_set)
    runner.run()
    _say({"rc": runner.rc, "cancelled": bool(runner.canceled)})


def _event(event: dict[str, Any]) -> bool:
    """Pass an event on; the answer says that it need not be written to the disk."""
    _say({"event": event})
    return False


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line, default=str) + "\n")
    sys.stdout.flush()


def _wait_for_the_end(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


if __name__ == "__main__":
    main()
