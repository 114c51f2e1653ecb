"""What is tried: who is killed, where, how late, at which vendor, and what is done after it. Pure."""

from __future__ import annotations

import random
from dataclasses import dataclass

CONTROLLER, ENGINE = "controller", "engine"

CREATE, DESTROY = "create", "destroy"
"""In the middle of the vendor's call that makes, or destroys, the server."""

BOUNDARIES = (
    "planned",
    "provisioning",
    "ready",
    "preparing",
    "benching",
    "collecting",
    "ingesting",
    "destroying",
    "gone",
)
"""Stages of a job: the controller is killed when one was just written down."""

ENGINE_POINTS = ("shared", "begin", "forget")
"""Other moments of the engine: it makes what jobs share; it was just started; it forgets what is gone."""

VENDORS = ("hetzner", "upcloud")

MIDDLE_RUNS, OTHER_RUNS = 20, 3

SLOW_SECONDS = 4.0
"""How much longer than else the call takes in whose middle the kill comes."""

BACKING_SECONDS = 1.0
"""About how long the emulated vendor then works on it itself: the server's container is started."""

LAST_JITTER_SECONDS = 0.3
"""How long at most after a boundary the kill comes."""


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        victim: :data:`CONTROLLER` or :data:`ENGINE`.
        point: :data:`CREATE`, :data:`DESTROY`, a stage, or one of :data:`ENGINE_POINTS`.
        seed: which of the runs at this point; all below is drawn from it.
        vendor: as the command line calls it.
        delay_seconds: how long after the moment began the kill comes.
        reap_first: ``benchctl reap`` before ``--resume``; else ``--resume`` finds everything as the kill left it.
        lag: what lists of the vendor lag behind by: arguments of ``emulation.store.Lag``.
    """

    victim: str
    point: str
    seed: int
    vendor: str
    delay_seconds: float
    reap_first: bool
    lag: tuple[tuple[str, float], ...]

    @property
    def name(self) -> str:
        """Of this case alone, as ``controller-create-07``."""
        return f"{self.victim}-{self.point}-{self.seed:02}"

    @property
    def in_the_middle(self) -> bool:
        """Whether the kill has to meet a vendor's call that is under way."""
        return self.point in (CREATE, DESTROY)


def case(victim: str, point: str, seed: int) -> Case:
    """The run of a point with this seed."""
    draw = random.Random(f"{victim}/{point}/{seed}")  # noqa: S311 - a seeded choice
    longest = {
        CREATE: SLOW_SECONDS + BACKING_SECONDS, DESTROY: SLOW_SECONDS, "shared": SLOW_SECONDS, "forget": SLOW_SECONDS,
        "begin": 0.02,  # some of its runs are over soon
    }.get(point, LAST_JITTER_SECONDS)  # fmt: skip
    lag = (("appears_after_lists", 2), ("lingers_for_lists", 2)) if seed % 4 in (1, 2) else ()
    return Case(
        victim,
        point,
        seed,
        # only Hetzner's servers share something
        "hetzner" if point in ("shared", "forget") else VENDORS[seed % 2],
        round(draw.uniform(0.0, longest), 3),
        # after an engine's kill the controller copes by itself; nothing comes between
        reap_first=victim == CONTROLLER and seed // 2 % 2 == 0,
        lag=lag,
    )


def all_cases() -> list[Case]:
    """All of the matrix; the ways to kill take turns, so that a part of it is a sample of the whole."""
    columns = [(victim, point, MIDDLE_RUNS) for victim in (CONTROLLER, ENGINE) for point in (CREATE, DESTROY)]
    # "provisioning" and "destroying" begin what is cut in the middle above; here it is their very beginning
    columns += [(CONTROLLER, point, OTHER_RUNS) for point in BOUNDARIES]
    columns += [(ENGINE, point, OTHER_RUNS) for point in ENGINE_POINTS]
    return [case(victim, point, seed) for seed in range(MIDDLE_RUNS) for victim, point, runs in columns if seed < runs]
