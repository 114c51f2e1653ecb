#!/usr/bin/python
"""Ansible module: measure LLM inference on the target with llama-bench."""

# Copyright: (c) 2026, the benchctl authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
---
module: llama_bench
short_description: Measure LLM inference speed with llama.cpp's llama-bench
version_added: "0.1.0"
description:
  - Downloads GGUF models in a thread (smallest first, several connections, checked by SHA-256) or writes synthetic
    weights of exactly the same shapes, and measures prompt processing and text generation with C(llama-bench).
  - A policy decides what runs next, how many samples are taken, and when a scenario is too slow to be worth its money.
    Every scenario of every model ends with exactly one outcome.
  - All that is measured is appended to C(journal.jsonl) in O(state_dir) at once. Running the module again goes on
    where it was. When everything is there, nothing is changed.
  - Meant to be run detached (C(async) with C(poll=0)) while M(llama_bench_info) brings the rows home, or waited for
    (C(async) with a C(poll) interval), so that a lost connection ends nothing.
options:
  state:
    description:
      - V(measured) measures what is not measured yet.
      - V(stopped) ends a measurement that runs on O(state_dir); finished rows are kept and it can go on later.
    type: str
    choices: [measured, stopped]
    default: measured
  state_dir:
    description: Folder of this measurement on the target, made if missing. One folder, one set of results.
    type: path
    required: true
  models_dir:
    description:
      - Folder where model files are kept, made if missing. Needed with O(state=measured).
    type: path
  llama_bench:
    description: Path of the C(llama-bench) executable on the target. Needed with O(state=measured).
    type: path
  suite:
    description:
      - What to measure, as in a suite file. C(scenarios.pp) and C(scenarios.tg) map token counts to the speed wanted
        in tokens per second; C(flags) and C(policy) are optional. Needed with O(state=measured).
    type: dict
  models:
    description:
      - The models, in any order; they are measured smallest first. Needed with O(state=measured).
      - Each has C(name) and C(file), and C(url) or C(path) or C(shape); C(bytes), C(sha256), C(parameters),
        C(tensor_bytes) and C(layers) as far as known.
    type: list
    elements: dict
  weights:
    description:
      - V(real) downloads the models, V(synthetic) writes random weights of the same shapes and quantisation types.
      - V(auto) is V(real) where the first model's address can be reached, else V(synthetic).
    type: str
    choices: [auto, real, synthetic]
    default: auto
  mirror:
    description: URL of a folder that holds the model files. It is tried before their own addresses.
    type: str
    default: ""
  connections:
    description: Connections per file while downloading.
    type: int
    default: 4
  threads:
    description: Threads of llama-bench; V(0) takes the number of physical cores.
    type: int
    default: 0
  device:
    description:
      - V(auto) uses GPUs where there are some, V(cpu) leaves them alone, V(gpu) fails where there are none.
    type: str
    choices: [auto, cpu, gpu]
    default: auto
  session_seconds:
    description:
      - Longest time that this run may take; V(0) is no limit. What is open then ends as C(not_reached).
    type: int
    default: 0
  token_file:
    description:
      - File on the target that holds a Hugging Face token, for models that need one. It is shown to Hugging Face
        alone, over TLS, and stands in no log.
    type: path
    default: ""
  attach:
    description:
      - Where a measurement runs on O(state_dir) already, wait for its end instead of failing. What it left open is
        measured then, unless it was stopped on request.
    type: bool
    default: false
  sweep:
    description: Name of the sweep that this belongs to, noted in the journal.
    type: str
    default: ""
  job:
    description: Name of the job that this belongs to, noted in the journal.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Says what would be measured, and changes nothing.
  diff_mode:
    support: none
    description: There is no text to compare.
requirements:
  - Linux, Python 3.9 or newer
  - llama-bench of llama.cpp
seealso:
  - module: llama_bench_info
author:
  - The benchctl authors (@benchctl)
"""

EXAMPLES = r"""
- name: Measure a small model and wait for the end
  llama_bench:
    state_dir: /var/lib/llama_bench/state
    models_dir: /var/lib/llama_bench/models
    llama_bench: /usr/local/bin/llama-bench
    suite:
      name: tiny
      models: [SmolLM-135M]
      scenarios:
        pp: {16: 2, 512: 25}
        tg: {16: 1}
    models:
      - name: SmolLM-135M
        file: SmolLM-135M.Q4_K_M.gguf
        url: https://huggingface.co/QuantFactory/SmolLM-135M-GGUF/resolve/main/SmolLM-135M.Q4_K_M.gguf
        bytes: 105454432
  async: 7200
  poll: 15

- name: End a measurement; what is finished is kept
  llama_bench:
    state: stopped
    state_dir: /var/lib/llama_bench/state
"""

RETURN = r"""
status:
  description: C(finished) when every scenario has an outcome, C(stopped) when it was ended before.
  returned: always
  type: str
  sample: finished
counts:
  description: Number of scenarios by outcome.
  returned: always
  type: dict
  sample: {ok: 12, predicted_skip: 3}
outcomes:
  description: Every scenario that has ended, with its speed.
  returned: with O(state=measured)
  type: list
  elements: dict
  contains:
    model:
      description: Short name of the model.
      type: str
    task:
      description: C(pp) or C(tg).
      type: str
    tokens:
      description: Prompt length, or number of tokens generated.
      type: int
    outcome:
      description: How it ended.
      type: str
    reason:
      description: Why, in one sentence; empty where all went well.
      type: str
    tokens_per_second:
      description: Mean speed of its samples; null without one.
      type: float
    samples:
      description: Number of samples that count.
      type: int
    noisy:
      description: The limits of noise that it broke.
      type: list
      elements: str
  sample:
    - model: SmolLM-135M
      task: pp
      tokens: 512
      outcome: ok
      reason: ""
      tokens_per_second: 812.4
      samples: 3
      noisy: []
would_measure:
  description: The scenarios that are still open.
  returned: in check mode
  type: list
  elements: str
  sample: [SmolLM-135M pp512, SmolLM-135M tg16]
journal:
  description: Path of the journal on the target.
  returned: always
  type: str
  sample: /var/lib/llama_bench/state/journal.jsonl
"""

import signal
import threading
import traceback
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.llama_bench_core import session
from ansible.module_utils.llama_bench_core.values import CoreError

ARGUMENTS: dict[str, Any] = {
    "state": {"type": "str", "choices": ["measured", "stopped"], "default": "measured"},
    "state_dir": {"type": "path", "required": True},
    "models_dir": {"type": "path"},
    "llama_bench": {"type": "path"},
    "suite": {"type": "dict"},
    "models": {"type": "list", "elements": "dict"},
    "weights": {"type": "str", "choices": ["auto", "real", "synthetic"], "default": "auto"},
    "mirror": {"type": "str", "default": ""},
    "connections": {"type": "int", "default": 4},
    "threads": {"type": "int", "default": 0},
    "device": {"type": "str", "choices": ["auto", "cpu", "gpu"], "default": "auto"},
    "session_seconds": {"type": "int", "default": 0},
    "token_file": {"type": "path", "default": ""},
    "attach": {"type": "bool", "default": False},
    "sweep": {"type": "str", "default": ""},
    "job": {"type": "str", "default": ""},
}


def main() -> None:
    """Translate between Ansible and the session: arguments in, result or one clear sentence out."""
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[("state", "measured", ("models_dir", "llama_bench", "suite", "models"))],
        supports_check_mode=True,
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda _number, _frame: stop.set())
    try:
        if module.params["state"] == "stopped":
            result = session.stop(module.params["state_dir"], check=module.check_mode)
        else:
            result = session.measure(module.params, check=module.check_mode, stop=stop)
    except CoreError as error:
        module.fail_json(msg=str(error), problem=error.problem, mend=error.mend)
    except Exception as error:  # noqa: BLE001 - the last fence: the reason as a sentence, the traceback for -vvv
        module.fail_json(
            msg=f"Unexpected {type(error).__name__}: {error}", problem=str(error), exception=traceback.format_exc()
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
