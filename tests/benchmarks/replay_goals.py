"""Does the policy save what it should? The whole recorded corpus against the goals, each said with its figure.

    python tests/benchmarks/replay_goals.py CORPUS [--jobs N] [--sensitivity] [--ablations]

CORPUS is a folder with inspector-2025-04-30.tar.xz, prices.csv.xz and sc-data-priceless-*.db.xz. Exit status 1 where a
goal is missed. ``--ablations`` turns the rules off one by one, and varies what was assumed, on every tenth run.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

from benchctl.models import load_models
from benchctl.replay import corpus, listed, replay, report
from benchctl.suites import load_suite

RULES = {
    "all rules": {},
    "five samples always": {"min_samples": 5},
    "two samples always": {"max_samples": 2, "short_scenario_seconds": 0.0},
    "short scenarios also until they agree": {"short_scenario_seconds": 0.0},
    "long scenarios agree at 1 % too": {"long_agreement": 0.01},
    "no prediction of scenarios": {"skip_margin": 1e9},
    "no early verdict on samples": {"miss_margin": 5.0},
    "no early verdict on warm-ups": {"warmup_patience": 6.0},
    "noisy measurements not repeated": {"noise_retries": 0},
    "noisy ones of any length repeated": {"repeat_seconds": 1e9},
    "memory not looked at": {"memory_fraction": 1e9},
    "300 s patience for a download": {"download_patience_seconds": 300.0},
    "20 min patience for any download": {"patience_per_row_seconds": 1e9},
}


def goals(summaries: dict[str, report.Summary], vendors: dict[str, report.Summary]) -> list[tuple[str, bool]]:
    """Each goal with its figure, and whether it is met."""
    found = []
    for name, whole in summaries.items():
        if name == "with assumptions":
            found.append((f"{name}: hours {whole.ratio:.3f} (goal 0.27)", whole.ratio <= 0.27))
            continue
        found += [
            (f"{name}: hours {whole.ratio:.3f} (goal 0.40)", whole.ratio <= 0.40),
            (f"{name}: rows kept {whole.kept_share:.4f} of {whole.rows} (goal 0.995)", whole.kept_share >= 0.995),
            (f"{name}: median shift {whole.median_shift:.5f} (goal under 0.001)", whole.median_shift < 0.001),
            (f"{name}: p95 shift {whole.p95_shift:.4f} (goal 0.025)", whole.p95_shift <= 0.025),
        ]
    for name, some in vendors.items():
        found.append((f"{name}: rows kept {some.kept_share:.4f} (goal 0.99)", some.kept_share >= 0.99))
    return found


def line(name: str, whole: report.Summary) -> str:
    return (
        f"{name:38} {whole.runs:5} runs {whole.ours_hours:7.1f} h  ratio {whole.ratio:.4f}  "
        f"kept {whole.kept_share:.4f}  shift {whole.median_shift:.5f} p95 {whole.p95_shift:.4f}  "
        f"{report.money_of(whole.ours_cost)}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--sensitivity", action="store_true")
    parser.add_argument("--ablations", action="store_true")
    asked = parser.parse_args()
    archive = asked.corpus / "inspector-2025-04-30.tar.xz"
    prices = listed.read_prices(asked.corpus / "prices.csv.xz")
    hardware = listed.read_hardware(next(asked.corpus.glob("sc-data-priceless-*.db.xz")))
    suite, models = load_suite("default"), load_models()
    if asked.ablations:
        setting = replay.Setting(suite, models, hardware, (replay.AS_RECORDED, *replay.SENSITIVITY.values()))
        runs = islice(corpus.raw_runs(archive), 0, None, 10)
        done_runs = [one.accounts for one in replay.replay_all(runs, setting, asked.jobs) if one.accounts]
        for index, name in enumerate(("as recorded", *replay.SENSITIVITY)):
            print(line(name, report.summarise([accounts[index] for accounts in done_runs], prices)), flush=True)
        for name, changes in RULES.items():
            changed = replace(suite, policy=replace(suite.policy, **changes))
            setting = replay.Setting(changed, models, hardware)
            runs = islice(corpus.raw_runs(archive), 0, None, 10)
            done = [one.accounts[0] for one in replay.replay_all(runs, setting, asked.jobs) if one.accounts]
            print(line(name, report.summarise(done, prices)), flush=True)
        return 0
    accounts = {"as recorded": replay.AS_RECORDED, "with assumptions": replay.WITH_ASSUMPTIONS}
    if asked.sensitivity:
        accounts.update(replay.SENSITIVITY)
    setting = replay.Setting(suite, models, hardware, tuple(accounts.values()))
    done = [one for one in replay.replay_all(corpus.raw_runs(archive), setting, asked.jobs) if one.accounts]
    found = {name: [one.accounts[index] for one in done] for index, name in enumerate(accounts)}
    for name, reruns in found.items():
        print(line(name, report.summarise(reruns, prices)))
    recorded = found["as recorded"]
    for group in (report.by(recorded, lambda one: one.half), report.by(recorded, lambda one: one.vendor)):
        for name, some in group.items():
            print(line(name, report.summarise(some, prices)))
    for name in ("as recorded", "with assumptions"):
        for row in report.by_cause(found[name]):
            print(f"{name:18} {row['cause']:26} {row['theirs_hours']:8.1f} h {row['ours_hours']:8.1f} h")
    print("rows lost:", report.losses_by_outcome(recorded))
    print("theirs:", report.money_of(report.summarise(recorded, prices).theirs_cost))
    halves = {
        f"as recorded, {half}": report.summarise(some) for half, some in report.by(recorded, lambda o: o.half).items()
    }
    summaries = {name: report.summarise(found[name]) for name in ("as recorded", "with assumptions")} | halves
    vendors = {name: report.summarise(some) for name, some in report.by(recorded, lambda one: one.vendor).items()}
    missed = 0
    for text, met in goals(summaries, vendors):
        print("met   " if met else "MISSED", text)
        missed += not met
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
