"""How often does a comparison call equal hardware different?

Two checks on a database that holds Spare Cores' results (docs/comparing.md has the figures)::

    python tests/benchmarks/comparison_calibration.py DATABASE

1. Server types of the same vendor with the same single GPU, compared in every scenario: by the t-test on the five
   samples of each, as anybody would, and by ``benchctl compare``.
2. All pairs within all families of the same hardware, each judged by what is left of the database without the two
   (their own difference must not tell how much they may differ).
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from benchctl import stats
from benchctl.comparison import Look, Scatter, between_instances, compare
from benchctl.db.comparing import side_by_side
from benchctl.db.engine import open_database, reading
from benchctl.db.queries import Question, ServerName
from benchctl.db.schema import Measurement, Server
from benchctl.db.variances import _facts, on_gpu
from benchctl.hardware import family_of
from sqlalchemy import select

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.orm import Session

Scenario = tuple[str, str, int]
Pair = tuple[ServerName, ServerName]

ISSUE: Scenario = ("gemma-2b.Q4_K_M.gguf", "tg", 16)
"""The scenario in which the t-test calls 24 of the 61 pairs different."""


def gpu_pairs(session: Session, vendor: str | None = None) -> list[Pair]:
    """Pairs of measured server types of one vendor that have the same single GPU."""
    groups: dict[tuple[str, str], list[ServerName]] = defaultdict(list)
    query = (
        select(Server.vendor_id, Server.server_id, Server.api_reference, Server.gpu_model)
        .where(Server.gpu_count == 1, Server.gpu_model.is_not(None))
        .where(
            select(Measurement.sweep_id)
            .where(Measurement.vendor_id == Server.vendor_id, Measurement.server_id == Server.server_id)
            .exists()
        )
        .order_by(Server.vendor_id, Server.api_reference)
    )
    for *name, gpu in session.execute(query):
        if vendor is None or name[0] == vendor:
            groups[name[0], gpu].append(ServerName(*name))
    return [pair for servers in groups.values() for pair in itertools.combinations(servers, 2)]


def samples_of(session: Session, scenario: Scenario) -> dict[tuple[str, str], list[float]]:
    """The speeds of every server's samples in one scenario, whatever did the work."""
    file, task, tokens = scenario
    query = select(Measurement.vendor_id, Measurement.server_id, Measurement.samples_ns).where(
        Measurement.model_file == file,
        Measurement.task == task,
        Measurement.tokens == tokens,
        Measurement.outcome.in_(("ok", "gpu_fallback")),
    )
    return {
        (vendor, server): [stats.tokens_per_second(tokens, one) for one in samples_ns]
        for vendor, server, samples_ns in session.execute(query)
    }


def t_test_differs(a: Sequence[float], b: Sequence[float]) -> bool:
    """Welch's t-test at 5 % on the samples of one run each, degrees of freedom rounded down as tables have it.

    It says nothing of the next instance.
    """
    parts = [statistics.variance(one) / len(one) for one in (a, b)]
    degrees = sum(parts) ** 2 / sum(part**2 / (len(one) - 1) for part, one in zip(parts, (a, b), strict=True))
    t = (statistics.fmean(a) - statistics.fmean(b)) / math.sqrt(sum(parts))
    return abs(t) > stats.student_t_95(int(degrees))


class Count(NamedTuple):
    """Comparisons, and how many of them are called different by the t-test and by ``benchctl compare``."""

    compared: int = 0
    t_test: int = 0
    ours: int = 0

    def __add__(self, other: tuple[Any, ...]) -> Count:
        return Count(*(a + b for a, b in zip(self, other, strict=True)))

    def __str__(self) -> str:
        return f"of {self.compared} the t-test calls {self.t_test} different, compare {self.ours}"


class Counted(NamedTuple):
    """What came of some pairs.

    Attributes:
        on_gpu: comparisons in which the same GPU did both servers' work.
        on_cpu: those in which a CPU did the work of one or both, which differ in their CPUs.
        apart: pairs that ``compare`` calls different where both ran on the GPU, with the scenarios.
    """

    on_gpu: Count
    on_cpu: Count
    apart: dict[Pair, list[Scenario]]


def count(session: Session, pairs: Iterable[Pair], scenario: Scenario | None = None) -> Counted:
    """Compare the pairs in one scenario alone, or in all that both have."""
    question = Question(fallback=True)
    if scenario is not None:
        question = replace(question, model=scenario[0], task=scenario[1], tokens=scenario[2])
    samples: dict[Scenario, dict[tuple[str, str], list[float]]] = {}
    counts = {True: Count(), False: Count()}
    apart: dict[Pair, list[Scenario]] = {}
    for pair in pairs:
        for row in side_by_side(session, pair, question).rows:
            if row["ratio"] is None:
                continue
            place = (row["model_file"], row["task"], row["tokens"])
            if place not in samples:
                samples[place] = samples_of(session, place)
            a, b = (samples[place][one.vendor, one.server] for one in pair)
            gpu = row["device_a"] == row["device_b"] != "CPU"
            different = row["verdict"].endswith("faster")
            counts[gpu] += (1, t_test_differs(a, b), different)
            if gpu and different:
                apart.setdefault(pair, []).append(place)
    return Counted(counts[True], counts[False], apart)


class Member(NamedTuple):
    """One server type of a family in one scenario."""

    server: str
    log_speed: float
    run: tuple[float, int, Sequence[int]]


class Calibration(NamedTuple):
    """Shares of same-hardware pairs that are called different.

    Attributes:
        pairs: how many pairs of server types.
        comparisons: how many comparisons of them, over all scenarios.
        one_alone: share of comparisons called different when asked for each alone (nominal: 5 %).
        all_at_once: share when a pair is compared in all its scenarios (Bonferroni).
        any_scenario: share of pairs called different in at least one scenario (nominal: 5 %).
        detectable: the ratio that half of the comparisons in all scenarios would show.
        detectable_alone: the same where each is asked for alone.
        pooled_stddev: of all families and scenarios together: the value that stands in where nothing is known.
        families: how many families.
    """

    pairs: int
    comparisons: int
    one_alone: float
    all_at_once: float
    any_scenario: float
    detectable: float
    detectable_alone: float
    pooled_stddev: float
    families: int


def calibrate(session: Session, gpu: bool) -> Calibration:
    """Judge every pair within every family by the rest of the database."""
    scenarios = _families(session, gpu)
    device = "gpu" if gpu else "cpu"
    looks: dict[tuple[Any, str, str], list[tuple[Look, Look]]] = defaultdict(list)
    everything: list[Scatter] = []
    for families in scenarios.values():
        scatters = {key: Scatter.of([one.log_speed for one in members]) for key, members in families.items()}
        everything += scatters.values()
        whole = Scatter.pooled(scatters.values())
        for key, members in families.items():
            for a, b in itertools.combinations(members, 2):
                rest = Scatter.of([one.log_speed for one in members if one not in (a, b)])
                own = scatters[key]
                pool = Scatter(
                    whole.sum_of_squares - own.sum_of_squares + rest.sum_of_squares,
                    whole.degrees_of_freedom - own.degrees_of_freedom + rest.degrees_of_freedom,
                    whole.groups,
                    whole.members,
                )
                between = between_instances(rest, pool, "family", device)
                looks[key, a.server, b.server].append((Look.at([a.run], between), Look.at([b.run], between)))
    alone, together, apart, widths, widths_alone = [], [], [], [], []
    for of_pair in looks.values():
        single = [compare(a, b) for a, b in of_pair]
        all_of_them = [compare(a, b, len(of_pair)) for a, b in of_pair]
        alone += [one.verdict.endswith("faster") for one in single]
        shown = [one.verdict.endswith("faster") for one in all_of_them]
        together += shown
        apart.append(any(shown))
        widths += [one.ratio_high / one.ratio for one in all_of_them]
        widths_alone += [one.ratio_high / one.ratio for one in single]
    return Calibration(
        len(looks),
        len(alone),
        statistics.fmean(alone),
        statistics.fmean(together),
        statistics.fmean(apart),
        statistics.median(widths),
        statistics.median(widths_alone),
        math.sqrt(Scatter.pooled(everything).variance or 0.0),
        len({key for key, _, _ in looks}),
    )


def _families(session: Session, gpu: bool) -> dict[Scenario, dict[Any, list[Member]]]:
    """By scenario and family, the server types in it: one run each."""
    families = {key: family_of(facts, gpu) for key, facts in _facts(session).items()}
    query = select(
        Measurement.model_file, Measurement.task, Measurement.tokens, Measurement.vendor_id, Measurement.server_id,
        Measurement.tokens_per_second, Measurement.samples_ns, Measurement.device, Measurement.gpu_layers_asked,
    ).where(Measurement.outcome == "ok", Measurement.tokens_per_second > 0, Measurement.weights == "real")  # fmt: skip
    found: dict[Scenario, dict[Any, list[Member]]] = defaultdict(lambda: defaultdict(list))
    for file, task, tokens, vendor, server, speed, samples_ns, device, asked in session.execute(query):
        family = families[vendor, server]
        if family is not None and on_gpu({"device": device, "gpu_layers_asked": asked}) == gpu:
            member = Member(server, math.log(speed), (speed, tokens, samples_ns))
            found[file, task, tokens][family.key].append(member)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("database", help="path of an SQLite file, or the URL of a database")
    options = parser.parse_args()
    url = options.database if "://" in options.database else f"sqlite:///{options.database}"
    engine = open_database(url, create=False)
    with reading(engine) as session:
        pairs = gpu_pairs(session, "aws")
        print(f"{len(pairs)} pairs of AWS server types with the same single GPU")
        for name, scenario in ((f"{ISSUE}, asked for alone", ISSUE), ("all scenarios of a pair at once", None)):
            counted = count(session, pairs, scenario)
            print(f"  {name}: {counted.on_gpu + counted.on_cpu}")
            print(f"    both on that GPU: {counted.on_gpu}")
            print(f"    one or both on the CPU: {counted.on_cpu}")
            for (one, other), scenarios in counted.apart.items():
                print(f"    called different: {one} and {other}, in {scenarios}")
        for gpu in (True, False):
            print("GPU" if gpu else "CPU", calibrate(session, gpu)._asdict())
    engine.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main())
