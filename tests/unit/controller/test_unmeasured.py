"""Why a server has no speed, from what is on record."""

from __future__ import annotations

import pytest
from benchctl.unmeasured import (
    OF_OUTCOME,
    WHY_MEANINGS,
    LastRun,
    Why,
    telling_outcome,
    was_billed,
    why_unmeasured,
)
from llama_bench_core.values import Outcome

QUOTA = "api error VcpuLimitExceeded: You have requested more vCPU capacity than your limit."


def test_a_server_that_nobody_tried() -> None:
    """Gone from the catalogue, described by it, or known by a price alone: three different things."""
    assert why_unmeasured(None, {}).why is Why.NEVER_TRIED
    assert why_unmeasured(None, {}, active=False).why is Why.DEPRECATED
    assert why_unmeasured(None, {}, described=False).why is Why.NOT_DESCRIBED


@pytest.mark.parametrize(
    ("last", "why"),
    [
        (LastRun("failed", -1, QUOTA), Why.QUOTA),
        (LastRun("failed", -1, "is obsolete and cannot be used to create new instances."), Why.DEPRECATED),
        (LastRun("failed", -1, "something that no rule knows"), Why.VENDOR_ERROR),
        (LastRun("failed", -1, None), Why.VENDOR_ERROR),
        (LastRun("failed", -2, "Task doesn't need to run on this instance"), Why.MEMORY),
        (LastRun("failed", None, QUOTA), Why.QUOTA),
        (LastRun("failed", 1, "the server could not be reached by SSH"), Why.FAILED),
        (LastRun("stopped", 2, None), Why.STOPPED),
        (LastRun("running", -1, None), Why.RUNNING),
        (LastRun("finished", 0, None), Why.NO_ROWS),
    ],
)
def test_a_run_without_an_outcome(last: LastRun, why: Why) -> None:
    """Exit codes and status decide; words only where a vendor gives nothing else."""
    verdict = why_unmeasured(last, {})
    assert verdict.why is why
    assert verdict.detail


def test_outcomes_say_more_than_the_end_of_the_run() -> None:
    """The most frequent outcome counts, with its recorded sentence; what only follows from others does not."""
    verdict = why_unmeasured(
        LastRun("finished", 0, None),
        {"crash": 3, "download_too_slow": 1, "not_reached": 40},
        {"crash": "main: error: CPU backend is not loaded"},
    )
    assert verdict.why is Why.CRASH
    assert verdict.detail == "main: error: CPU backend is not loaded"
    assert telling_outcome({"crash": 9, "gpu_fallback": 1}) is Outcome.GPU_FALLBACK
    assert telling_outcome({"not_reached": 5}) is Outcome.NOT_REACHED
    assert telling_outcome({"ok": 5}) is None
    assert telling_outcome({}) is None


def test_every_outcome_and_every_reason_is_known() -> None:
    """An outcome added to the core must be given a reason, and a reason a meaning."""
    assert set(OF_OUTCOME) == set(Outcome) - {Outcome.OK}
    assert set(WHY_MEANINGS) == set(Why)


def test_what_was_never_given_is_not_billed() -> None:
    """A refused server and one that nobody asked for cost nothing; a run that failed on a server does."""
    assert not was_billed(-1, "whatever")
    assert not was_billed(-2, None)
    assert not was_billed(None, QUOTA)
    assert was_billed(0, None)
    assert was_billed(1, "the module failed")
    assert was_billed(None, None)


def test_a_server_that_was_had_is_not_judged_by_the_tries_before_it() -> None:
    """Two zones were sold out, the third had one, and its run failed: that is the reason."""
    tries = [("stock", "sold out in a"), (None, "a wholly new sentence")]
    without = why_unmeasured(LastRun("failed", tries=tries), {})
    assert (without.why, without.detail) == (
        Why.VENDOR_ERROR, "a wholly new sentence (2 tries: 1 x stock, 1 x vendor error)",
    )  # fmt: skip
    had = why_unmeasured(LastRun("failed", error="SSH dropped.", tries=tries, rented=True), {})
    assert (had.why, had.detail) == (Why.FAILED, "SSH dropped.")
    assert why_unmeasured(LastRun("stopped", tries=tries[:1]), {}).why is Why.STOPPED


@pytest.mark.parametrize(
    ("error", "billed"),
    [
        ("error during placement (resource_unavailable)", False),
        ('Code="OSProvisioningTimedOut" Message="OS Provisioning did not finish"', True),
        ("Server.SpotInstanceTermination: Spot instance termination", True),
    ],
)
def test_a_server_that_came_too_late_or_was_taken_back_was_billed(error: str, billed: bool) -> None:
    """Only what the vendor refused cost nothing."""
    assert was_billed(None, error) is billed
