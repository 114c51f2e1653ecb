"""The reaper's judgement: what may live, what must go, and why."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest
from benchctl.clouds.spec import SHARED_JOB, resource_name, shared_name
from benchctl.clouds.verdicts import (
    MARGIN_SECONDS,
    Book,
    Decision,
    Holder,
    Row,
    Verdict,
    after_loss,
    awaited,
    judge,
)
from benchctl.ledger import STAGES, JobState
from scripted_cloud import thing

NOW = 1_800_000_000.0
SWEEP = "20261126-0001-hetzner-ab12"
FUTURE, PAST = int(NOW) + 3600, int(NOW) - 3600


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def job(name: str = "cx22", **changes: Any) -> JobState:
    state: dict[str, Any] = {
        "job": name, "vendor": "hcloud", "server": name, "host": f"{name}-1", "lifetime_seconds": 3600, "attempt": 1,
        "stage": "benching", "status": "running", "launched_at": iso(NOW - 60), "expires_at": iso(FUTURE),
        "price_per_hour": 0.5, "currency": "EUR", **changes,
    }  # fmt: skip
    return JobState(**state)


def book(*jobs: JobState, **changes: Any) -> Book:
    return Book(SWEEP, jobs or (job(),), **changes)


def one(resource: Any, *books: Book, **options: Any) -> Verdict:
    (verdict,) = judge([resource], books, NOW, **options)
    return verdict


SERVER = thing("benchctl-cx22", SWEEP, "cx22", expires_at=FUTURE)


def test_what_its_sweep_uses_lives() -> None:
    """A server of a job that runs is kept, whoever runs the sweep."""
    for holder in (Holder.OTHER, Holder.CALLER):
        assert one(SERVER, book(holder=holder)).decision is Decision.KEEP


def test_what_nobody_runs_is_orphaned() -> None:
    """Its controller is dead: the server goes, and the verdict says what it cost."""
    verdict = one(SERVER, book())
    assert verdict.decision is Decision.ORPHANED
    assert (verdict.sweep, verdict.job, verdict.price_per_hour, verdict.currency) == (SWEEP, "cx22", 0.5, "EUR")


def test_an_orphan_has_its_grace() -> None:
    """Within the grace, and where orphans are to be left alone, it can still be resumed."""
    assert one(SERVER, book(quiet_seconds=599), grace_seconds=600).decision is Decision.KEEP
    assert one(SERVER, book(quiet_seconds=600), grace_seconds=600).decision is Decision.ORPHANED
    assert one(SERVER, book(quiet_seconds=9999), orphans=False).decision is Decision.KEEP


@pytest.mark.parametrize("ended", [{"status": "failed"}, {"status": "stopped"}, {"stage": "gone"}, {"stage": "done"}])
def test_what_a_job_left_behind_goes(ended: dict[str, Any]) -> None:
    """Its job ended and its server is there still: it goes at once, grace or not."""
    options = {"orphans": False, "grace_seconds": 9999.0}
    assert one(SERVER, book(job(**ended)), **options).decision is Decision.FINISHED
    assert one(SERVER, book(job(**ended), holder=Holder.CALLER), **options).decision is Decision.FINISHED
    # what another process does with its jobs is its own affair
    assert one(SERVER, book(job(**ended), holder=Holder.OTHER), **options).decision is Decision.KEEP


def test_expiry_ends_everything() -> None:
    """After its time a thing goes; a sweep that runs gets a margin to see to it itself."""
    late = thing("benchctl-cx22", SWEEP, "cx22", expires_at=PAST)
    assert one(late).decision is Decision.EXPIRED
    assert one(late, book(), orphans=False).decision is Decision.EXPIRED
    just = thing("benchctl-cx22", SWEEP, "cx22", expires_at=int(NOW - MARGIN_SECONDS + 1))
    over = thing("benchctl-cx22", SWEEP, "cx22", expires_at=int(NOW - MARGIN_SECONDS))
    for holder in (Holder.OTHER, Holder.CALLER):
        assert one(just, book(holder=holder)).decision is Decision.KEEP
        assert one(over, book(holder=holder)).decision is Decision.EXPIRED


def test_a_stranger_is_left_alone_unless_asked_for() -> None:
    """A sweep that no book knows may be a colleague's."""
    strange = thing("benchctl-x", "20200101-0000-gcp-zz99", "x", expires_at=FUTURE)
    assert one(strange, book()).decision is Decision.KEEP
    assert one(strange, book(), everything=True).decision is Decision.ASKED
    # not even then what another process of this ledger runs
    assert one(SERVER, book(holder=Holder.OTHER), everything=True).decision is Decision.KEEP


def test_a_name_says_whose_it_is() -> None:
    """What can't be labelled is told by its name, with the ending that its kind adds."""
    network = thing(f"{shared_name(SWEEP, 'hetzner', '')}-net", kind="network")
    disk = thing(f"{resource_name(SWEEP, 'cx22', 1)}-disk", kind="disk")
    known = book(holder=Holder.NOBODY)
    assert [(v.sweep, v.job) for v in judge([network, disk], [known], NOW)] == [(SWEEP, SHARED_JOB), (SWEEP, "cx22")]
    nobody = one(thing("benchctl-what-is-this-12345678"), known)
    assert (nobody.decision, nobody.sweep) == (Decision.KEEP, "")


def test_the_table_knows_names_and_ends() -> None:
    """A row of the table instance stands in for labels that are missing."""
    row = Row("benchctl-odd-name", "hcloud", "disk", SWEEP, "cx22", "alive", NOW - 9999, float(PAST))
    verdict = one(thing("benchctl-odd-name", kind="disk"), book(holder=Holder.OTHER), rows=[row])
    assert (verdict.decision, verdict.job) == (Decision.EXPIRED, "cx22")


def test_what_jobs_share_lives_as_long_as_the_last() -> None:
    """A firewall goes with the last job, and not with its own label's time."""
    shared = thing("benchctl-shared", SWEEP, SHARED_JOB, expires_at=PAST, kind="firewall")
    done = job("a", stage="gone", status="finished", gone_at=iso(NOW))
    running = book(done, job("b"), holder=Holder.CALLER)
    assert one(shared, running).decision is Decision.KEEP
    assert one(shared, book(done, job("b"), holder=Holder.OTHER)).decision is Decision.KEEP
    assert one(shared, book(done, done, holder=Holder.CALLER)).decision is Decision.EXPIRED
    fresh = thing("benchctl-shared", SWEEP, SHARED_JOB, expires_at=FUTURE, kind="firewall")
    assert one(fresh, book(done, done, holder=Holder.CALLER)).decision is Decision.FINISHED
    assert one(fresh, book(done, job("b"))).decision is Decision.ORPHANED
    # of a stranger: as long as the last of its servers
    pair = [thing("s", "other", SHARED_JOB, expires_at=PAST, kind="key"), thing("v", "other", "v", expires_at=FUTURE)]
    assert [v.decision for v in judge(pair, [], NOW)] == [Decision.KEEP, Decision.KEEP]


def test_an_earlier_try_is_left_over() -> None:
    """The server of a try that failed goes while the job goes on elsewhere."""
    second = job(attempt=2)
    first, now = (thing(resource_name(SWEEP, "cx22", n), SWEEP, "cx22", expires_at=FUTURE) for n in (1, 2))
    running = book(second, holder=Holder.CALLER)
    assert one(first, running).decision is Decision.FINISHED
    assert one(now, running).decision is Decision.KEEP


def test_one_sweep_alone() -> None:
    """With a sweep given, nothing else is even mentioned."""
    other = thing("benchctl-y", "other", "y", expires_at=PAST)
    assert [v.resource for v in judge([SERVER, other], [book()], NOW, sweep=SWEEP)] == [SERVER]
    assert judge([thing("benchctl-nobodys")], [book()], NOW, sweep=SWEEP) == []


HOLDERS = list(Holder)
STATUSES = ["waiting", "running", "finished", "stopped", "failed"]


def test_rules_hold_over_all_combinations() -> None:
    """Some 10,000 combinations; what is destroyed, and what never is."""
    count = 0
    for holder, stage, status, late, everything, orphans, grace, kind, label in itertools.product(
        HOLDERS, [*STAGES, "done"], STATUSES, (-3600, -1, 0, 599, 600, 7200), (False, True), (False, True),
        (0.0, 600.0), ("server", "firewall"), ("cx22", SHARED_JOB, "unheard-of"),
    ):  # fmt: skip
        count += 1
        known = Book(SWEEP, (job(stage=stage, status=status, gone_at=iso(NOW)),), holder, quiet_seconds=100.0)
        resource = thing("benchctl-r", SWEEP, label, expires_at=int(NOW) - late, kind=kind)
        verdict = one(resource, known, everything=everything, orphans=orphans, grace_seconds=grace)
        ended = label == "unheard-of" or status in ("finished", "stopped", "failed") or stage in ("gone", "done")
        where = (holder, stage, status, late, orphans, grace, label, verdict)
        assert verdict.reason, where
        assert verdict.decision is not Decision.ASKED, where
        if holder is not Holder.NOBODY and label == SHARED_JOB and not ended:
            assert not verdict.doomed, where
        elif holder is Holder.OTHER:
            assert verdict.doomed == (late >= 600), where
        elif holder is Holder.CALLER:
            assert verdict.doomed == (late >= 600 or ended), where
        else:
            assert verdict.doomed == (late >= 0 or ended or (orphans and grace == 0)), where
    assert count > 10_000


@pytest.mark.parametrize("stage", STAGES)
def test_a_job_that_lost_its_server_can_go_on(stage: str) -> None:
    """What is at home already is not thrown away; what was in the middle is stopped, so that it can be resumed."""
    changes = after_loss(job(stage=stage), "2026-11-26T00:00:00+00:00")
    assert changes["gone_at"]
    assert ("status" in changes) == (stage not in ("ingesting", "destroying"))
    assert ("stage" in changes) == (stage != "ingesting")
    assert "status" not in after_loss(job(stage=stage, status="failed"), "x")


def test_what_was_asked_for_lately_is_awaited() -> None:
    """Only lately, answered or not, and never of a sweep in another's hands."""
    row = Row("n", "hcloud", "server", SWEEP, "cx22", "asked", NOW - 60)
    mine = {SWEEP: book()}
    assert awaited([row], mine, NOW, 120) == [row]
    assert awaited([row], mine, NOW, 60) == []
    assert awaited([row], {SWEEP: book(holder=Holder.OTHER)}, NOW, 120) == []
    assert awaited([row], {}, NOW, 120) == []
    assert awaited([Row("n", "hcloud", "server", SWEEP, "cx22", "alive", NOW)], mine, NOW, 120)
    assert awaited([Row("n", "hcloud", "server", SWEEP, "cx22", "gone", NOW)], mine, NOW, 120) == []
