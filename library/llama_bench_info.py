#!/usr/bin/python
"""Ansible module: what is new in the state folder of a measurement."""

# Copyright: (c) 2026, the benchctl authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
---
module: llama_bench_info
short_description: Read the progress and the new rows of a measurement
version_added: "0.1.0"
description:
  - Reads what a measurement by M(llama_bench) has written to its state folder since the last look.
  - One task brings home everything, so that a poller over many hosts costs one task per host.
options:
  state_dir:
    description: State folder of the measurement on the target.
    type: path
    required: true
  journal_offset:
    description: Bytes of the journal that are already known.
    type: int
    default: 0
  stderr_offset:
    description: Bytes of llama-bench's stderr that are already known.
    type: int
    default: 0
  max_bytes:
    description: The most to read of each at once; what is left comes with the next look.
    type: int
    default: 1048576
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It changes nothing.
seealso:
  - module: llama_bench
author:
  - The benchctl authors (@benchctl)
"""

EXAMPLES = r"""
- name: Look at a measurement
  llama_bench_info:
    state_dir: /var/lib/llama_bench/state
  register: measurement
"""

RETURN = r"""
alive:
  description: Whether a process is measuring now.
  returned: success
  type: bool
status:
  description: C(running), C(finished), C(stopped), C(failed), C(died) or C(absent).
  returned: success
  type: str
  sample: running
message:
  description: What the measurement said when it ended.
  returned: success
  type: str
progress:
  description: Live progress; empty before the first.
  returned: success
  type: dict
  sample: {phase: measuring, model: SmolLM-135M, task: pp, tokens: 512, scenarios_done: 2, scenarios_total: 10}
journal:
  description: New whole lines of the journal.
  returned: success
  type: str
journal_offset:
  description: Bytes of the journal that are known now.
  returned: success
  type: int
stderr:
  description: New text of llama-bench's stderr.
  returned: success
  type: str
stderr_offset:
  description: Bytes of it that are known now.
  returned: success
  type: int
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llama_bench_core.state import read_increment


def main() -> None:
    """Read, and answer."""
    module = AnsibleModule(
        argument_spec={
            "state_dir": {"type": "path", "required": True},
            "journal_offset": {"type": "int", "default": 0},
            "stderr_offset": {"type": "int", "default": 0},
            "max_bytes": {"type": "int", "default": 1048576},
        },
        supports_check_mode=True,
    )
    asked = module.params
    increment = read_increment(
        Path(asked["state_dir"]), asked["journal_offset"], asked["stderr_offset"], asked["max_bytes"]
    )
    module.exit_json(changed=False, **increment.to_dict())


if __name__ == "__main__":
    main()
