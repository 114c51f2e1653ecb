"""The downloader against a real server that cuts, stalls, lies, throttles and refuses; against kills and full disks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from lab.http_faults import Manner, server
from llama_bench_core import disk
from llama_bench_core.delivery import Clock, FetchSettings, Supplied, SupplyFailure
from llama_bench_core.supply import Supply
from llama_bench_core.values import Model, Outcome

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from lab.http_faults import Server

CORE = str(Path(disk.__file__).resolve().parent.parent)
BODY = b"GGUF" + random.Random(1).randbytes(2_000_000)  # noqa: S311 - the same bytes in every run
SHA256 = hashlib.sha256(BODY).hexdigest()
FINE = FetchSettings(reserve_bytes=0, chunk_bytes=256 * 1024, split_bytes=64 * 1024)
UNDIVIDED = FetchSettings(reserve_bytes=0, split_bytes=len(BODY))
LIMIT = 60
SLOW = 20_000
"""Bytes per second of a connection that is still at work when this machine has stood still for ten seconds: the server
then sends all at once what it has not sent meanwhile."""


@pytest.fixture
def web_server() -> Iterator[Server]:
    """A server on loopback."""
    with server() as running:
        yield running


class Case:
    """One supply in a folder of its own, with pauses that are noted and cut short."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pauses: list[float] = []
        self.events: list[tuple[str, str, str]] = []
        self.clock = Clock(wait=self._wait, random=lambda: 0.0)
        self._running: list[Supply] = []

    def _wait(self, event: threading.Event, seconds: float) -> bool:
        self.pauses.append(seconds)
        return event.wait(min(seconds, 0.005))

    def start(self, *models: Model, fetch: FetchSettings = FINE, **more: Any) -> Supply:
        """A running supply."""
        supply = Supply(
            models,
            str(self.folder),
            fetch=fetch,
            clock=self.clock,
            on_event=lambda *event: self.events.append(event),
            **more,
        )
        self._running.append(supply)
        supply.start()
        return supply

    def get(self, model: Model, fetch: FetchSettings = FINE) -> Supplied | SupplyFailure | None:
        """One model, waited for."""
        return self.start(model, fetch=fetch).wait(model.name, LIMIT)

    def kinds(self) -> list[str]:
        """What happened, by kind."""
        return [kind for kind, _, _ in self.events]

    def stop(self) -> None:
        """End what runs."""
        for supply in self._running:
            supply.stop()

    def files(self) -> set[str]:
        """What lies in the folder."""
        return {one.name for one in self.folder.iterdir()} if self.folder.exists() else set()


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    """A supply in a temporary folder, stopped at the end."""
    running = Case(tmp_path / "models")
    yield running
    running.stop()


def model(web: Server, path: str = "/m.gguf", **more: Any) -> Model:
    """The model that the server has."""
    facts = {"bytes": len(BODY), "sha256": SHA256, "url": web.url(path), **more}
    return Model("m", "m.gguf", **facts)


def assert_whole(case: Case, result: Supplied | SupplyFailure | None) -> None:
    """The file is there, right, and nothing but its remembered checksum lies beside it."""
    assert isinstance(result, Supplied), result
    assert Path(result.path).read_bytes() == BODY
    assert (result.bytes, result.sha256, result.weights) == (len(BODY), SHA256, "real")
    assert case.files() == {"m.gguf", "m.gguf.sha256.json"}


def assert_failed(result: Supplied | SupplyFailure | None, outcome: Outcome, said: str) -> None:
    """It failed so, and says it in one sentence for a person."""
    assert isinstance(result, SupplyFailure), result
    assert result.outcome is outcome
    assert said in result.reason
    assert "Traceback" not in result.reason


def test_a_file_comes_over_several_connections_each_byte_once(web_server: Server, case: Case) -> None:
    """Ranges that do not overlap, together the file."""
    web_server.serve("/m.gguf", BODY, manner=Manner(bytes_per_second=2e6))
    assert_whole(case, case.get(model(web_server)))
    asked = web_server.requests()
    assert all(one.status == 206 for one in asked)
    starts = sorted(one.start for one in asked if one.start is not None)
    assert len(starts) == len(set(starts)) >= 4
    assert sum(one.sent for one in asked) < 1.6 * len(BODY)  # what a divided range had been sent beyond its new end


def test_without_size_and_checksum_the_server_s_word_and_the_magic_count(web_server: Server, case: Case) -> None:
    """A user's own URL, of which nothing is known."""
    web_server.serve("/m.gguf", BODY)
    assert_whole(case, case.get(model(web_server, bytes=0, sha256="")))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_server_without_ranges_is_served_by_one_connection(
    web_server: Server, case: Case, chunked: bool, known: bool
) -> None:
    """With and without a length."""
    web_server.serve("/m.gguf", BODY, manner=Manner(ranges=False, chunked=chunked))
    facts = {} if known else {"bytes": 0, "sha256": ""}
    assert_whole(case, case.get(model(web_server, **facts)))
    assert len(web_server.requests()) == 1


@pytest.mark.parametrize("chunked", [True, False])
def test_a_cut_without_ranges_begins_anew(web_server: Server, case: Case, chunked: bool) -> None:
    """There is no other way."""
    cut = Manner(ranges=False, chunked=chunked, cut_after=300_000)
    web_server.serve("/m.gguf", BODY, cut, cut, manner=Manner(ranges=False, chunked=chunked))
    assert_whole(case, case.get(model(web_server)))
    assert len(web_server.requests()) == 3


def test_cuts_in_mid_body_cost_no_byte_that_was_there(web_server: Server, case: Case) -> None:
    """Every connection is cut again and again, and goes on where it was."""
    web_server.serve("/m.gguf", BODY, manner=Manner(cut_after=100_000))
    assert_whole(case, case.get(model(web_server)))
    assert sum(one.sent for one in web_server.requests()) < 1.2 * len(BODY)
    assert "retry" in case.kinds()


def test_a_server_that_never_gets_farther_is_given_up(web_server: Server, case: Case) -> None:
    """After the attempts, with growing pauses; the sentence says why."""
    web_server.serve("/m.gguf", BODY, manner=Manner(ranges=False, cut_after=100_000))
    result = case.get(model(web_server))
    assert_failed(result, Outcome.DOWNLOAD_FAILED, "ended before the file did")
    # The first cut was progress; after it came six that were none.
    assert [one for one in case.pauses if one > 0.2] == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert case.files() == set()


def test_a_stalled_connection_is_made_anew(web_server: Server, case: Case) -> None:
    """After the stall time, not for ever."""
    web_server.serve("/m.gguf", BODY, *[Manner(stall_after=70_000)] * 3)
    began = time.monotonic()
    assert_whole(case, case.get(model(web_server), replace(FINE, stall_seconds=0.4)))
    assert 0.3 < time.monotonic() - began < 60
    assert any("stalled" in sentence for _, _, sentence in case.events)


def test_a_slow_connection_does_not_hold_up_the_end(web_server: Server, case: Case) -> None:
    """The others take over what it would need long for."""
    web_server.serve("/m.gguf", BODY, Manner(bytes_per_second=5_000))
    began = time.monotonic()
    assert_whole(case, case.get(model(web_server), replace(FINE, split_bytes=4096)))
    assert time.monotonic() - began < 40  # alone it would take 52 s for its first chunk of 256 KiB


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_ends_the_model_at_once(web_server: Server, case: Case, status: int) -> None:
    """No second request, and a sentence with the answer."""
    web_server.serve("/m.gguf", BODY, manner=Manner(status=status))
    assert_failed(case.get(model(web_server)), Outcome.DOWNLOAD_FAILED, f"answered {status}")
    assert len(web_server.requests()) == 1
    assert case.files() == set()


@pytest.mark.parametrize("status", [429, 503])
def test_the_pause_that_a_server_asks_for_is_kept(web_server: Server, case: Case, status: int) -> None:
    """As long as it says, then the file comes."""
    web_server.serve("/m.gguf", BODY, Manner(status=status, headers={"Retry-After": "17"}))
    assert_whole(case, case.get(model(web_server)))
    assert 17 in case.pauses


def test_a_server_that_grants_two_connections_delivers_over_two(web_server: Server, case: Case) -> None:
    """The others give up, which is no failure of the file."""
    file = web_server.serve("/m.gguf", BODY, Manner(bytes_per_second=1e6), Manner(bytes_per_second=1e6))
    file.manner = Manner(status=403)
    fetch = FetchSettings(connections=4, reserve_bytes=0, chunk_bytes=1_100_000, split_bytes=1_100_000)
    assert_whole(case, case.get(model(web_server), fetch))


def test_wrong_bytes_are_fetched_once_more_and_then_it_is_over(web_server: Server, case: Case) -> None:
    """One retry from scratch; nothing is left of what is wrong."""
    web_server.serve("/m.gguf", BODY, manner=Manner(wrong=True))
    fetch = FetchSettings(connections=1, reserve_bytes=0)
    assert_failed(case.get(model(web_server), fetch), Outcome.DOWNLOAD_FAILED, "is expected")
    assert len(web_server.requests()) == 2
    assert case.files() == set()


def test_a_corrupt_arrival_followed_by_a_good_one_is_fine(web_server: Server, case: Case) -> None:
    """The retry from scratch counts."""
    web_server.serve("/m.gguf", BODY, Manner(wrong=True))
    assert_whole(case, case.get(model(web_server), FetchSettings(connections=1, reserve_bytes=0)))
    assert "restarted" in case.kinds()


def test_what_is_no_gguf_is_refused_when_no_checksum_is_known(web_server: Server, case: Case) -> None:
    """A page that says "please log in", for instance."""
    web_server.serve("/m.gguf", b"<html>please log in</html>")
    assert_failed(case.get(model(web_server, bytes=0, sha256="")), Outcome.DOWNLOAD_FAILED, "not a GGUF file")


def test_a_file_of_another_size_is_refused_before_it_is_fetched(web_server: Server, case: Case) -> None:
    """It can't be the one; also when only the server says so wrongly."""
    web_server.serve("/m.gguf", BODY + b"more")
    assert_failed(case.get(model(web_server)), Outcome.DOWNLOAD_FAILED, "another file")
    web_server.serve("/m.gguf", BODY, manner=Manner(ranges=False, content_length=5))
    assert_failed(case.get(model(web_server)), Outcome.DOWNLOAD_FAILED, "has 5 bytes")
    assert case.files() == set()


def test_a_claimed_length_that_never_comes_is_given_up(web_server: Server, case: Case) -> None:
    """With nothing known but the server's own word."""
    web_server.serve("/m.gguf", BODY, manner=Manner(ranges=False, content_length=len(BODY) + 9))
    result = case.get(model(web_server, bytes=0, sha256=""))
    assert_failed(result, Outcome.DOWNLOAD_FAILED, "ended before the file did")


def test_a_file_that_changes_in_the_middle_is_begun_anew(web_server: Server, case: Case) -> None:
    """Two versions never come together in one file."""
    old = b"GGUF" + bytes(len(BODY) - 4)
    file = web_server.serve("/m.gguf", old, *[Manner(cut_after=100_000)] * 4, etag='"old"')

    def change(kind: str, _model: str, _sentence: str) -> None:
        if kind == "retry":
            web_server.files["/m.gguf"].body, file.etag = BODY, '"new"'

    supply = Supply([model(web_server, sha256="")], str(case.folder), fetch=FINE, clock=case.clock, on_event=change)
    supply.start()
    assert_whole(case, supply.wait("m", LIMIT))
    supply.stop()


def test_a_redirect_to_another_host_is_followed_for_every_piece(web_server: Server, case: Case) -> None:
    """As Hugging Face sends its readers to a network of servers."""
    with server() as cdn:
        cdn.serve("/blob", BODY)
        web_server.serve("/m.gguf", b"", manner=Manner(status=302, headers={"Location": cdn.url("/blob?sig=x")}))
        cdn.files["/blob?sig=x"] = cdn.files["/blob"]
        assert_whole(case, case.get(model(web_server)))
        assert len(cdn.requests()) == len(web_server.requests()) >= 4


def test_a_mirror_serves_and_what_it_lacks_comes_from_the_origin(web_server: Server, case: Case) -> None:
    """A mirror need not be complete, or right."""
    origin = web_server.serve("/m.gguf", BODY)
    mirror = FetchSettings(mirror=web_server.url("/mirror"), reserve_bytes=0)
    assert_whole(case, case.get(model(web_server), mirror))
    assert [one.path for one in web_server.requests()][:2] == ["/mirror/m.gguf", "/m.gguf"]
    (case.folder / "m.gguf").unlink()
    web_server.serve("/mirror/m.gguf", BODY, manner=Manner(wrong=True))
    assert_whole(case, case.get(model(web_server), mirror))
    (case.folder / "m.gguf").unlink()
    web_server.serve("/mirror/m.gguf", BODY)
    origin.manner = Manner(status=500)
    assert_whole(case, case.get(model(web_server), mirror))


def test_a_folder_is_a_mirror(case: Case, tmp_path: Path) -> None:
    """By its path; nothing is asked of a network."""
    (tmp_path / "m.gguf").write_bytes(BODY)
    fetch = FetchSettings(mirror=str(tmp_path), reserve_bytes=0)
    assert_whole(case, case.get(Model("m", "m.gguf", bytes=len(BODY), sha256=SHA256), fetch))


def test_a_file_that_is_there_is_used_and_hashed_once(web_server: Server, case: Case) -> None:
    """42 GB are not read in every session, but again when the file is another one."""
    case.folder.mkdir()
    (case.folder / "m.gguf").write_bytes(BODY)
    assert_whole(case, case.get(model(web_server)))
    memory = case.folder / "m.gguf.sha256.json"
    written = memory.stat().st_mtime_ns
    assert_whole(case, case.get(model(web_server)))
    assert memory.stat().st_mtime_ns == written
    assert web_server.requests() == []
    web_server.serve("/m.gguf", BODY)
    (case.folder / "m.gguf").write_bytes(BODY[:-1] + b"?")
    assert_whole(case, case.get(model(web_server)))
    assert web_server.requests()


def test_a_model_that_the_user_has_is_used_where_it_lies(case: Case, tmp_path: Path) -> None:
    """Never copied, never replaced; what is wrong with it is said."""
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(BODY)
    result = case.get(Model("m", "mine.gguf", path=str(mine)))
    assert isinstance(result, Supplied)
    assert (result.path, result.sha256) == (str(mine), SHA256)
    mine.write_bytes(b"no")
    assert_failed(case.get(Model("m", "mine.gguf", path=str(mine))), Outcome.DOWNLOAD_FAILED, "not a GGUF file")
    missing = Model("m", "x.gguf", path=str(tmp_path / "x.gguf"))
    assert_failed(case.get(missing), Outcome.DOWNLOAD_FAILED, "does not exist")


def test_one_bad_model_ends_that_model_only(web_server: Server, case: Case) -> None:
    """The others come, smallest first."""
    web_server.serve("/a", BODY)
    web_server.serve("/c", BODY)
    models = [
        Model("c", "c.gguf", url=web_server.url("/c")),
        Model("b", "b.gguf", bytes=9, url=web_server.url("/b")),
        Model("a", "a.gguf", bytes=len(BODY), url=web_server.url("/a")),
    ]
    supply = case.start(*models)
    assert supply.order == ("b", "a", "c")
    assert_failed(supply.wait("b", LIMIT), Outcome.DOWNLOAD_FAILED, "404")
    assert isinstance(supply.wait("a", LIMIT), Supplied)
    assert isinstance(supply.wait("c", LIMIT), Supplied)
    assert [one["status"] for one in supply.status().values()] == ["failed", "ready", "ready"]


def test_stop_is_quick_and_the_next_session_goes_on(web_server: Server, case: Case) -> None:
    """Only what is missing is asked for again."""
    web_server.serve("/m.gguf", BODY, manner=Manner(stall_after=200_000))
    supply = case.start(model(web_server), fetch=FetchSettings(reserve_bytes=0, chunk_bytes=500_000, split_bytes=1000))
    wait_until(lambda: supply.status()["m"]["bytes"] >= 4 * 200_000)
    began = time.monotonic()
    supply.stop()
    assert time.monotonic() - began < 30
    assert supply.wait("m") is None
    wait_until(lambda: case.files() == {"m.gguf.part", "m.gguf.part.json"})
    web_server.serve("/m.gguf", BODY)
    before = len(web_server.requests())
    assert_whole(case, case.get(model(web_server), UNDIVIDED))
    assert bytes_sent(web_server, before, len(BODY) - 800_000) == len(BODY) - 800_000


def test_stop_does_not_wait_for_a_server_that_is_silent(case: Case) -> None:
    """Not even before it has answered."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/m.gguf"
        supply = case.start(Model("m", "m.gguf", url=url), fetch=FetchSettings(reserve_bytes=0))
        silent.accept()[0].close()
        began = time.monotonic()
        supply.stop()
        assert time.monotonic() - began < 30


def test_an_abandoned_download_stops_and_frees_the_disk(web_server: Server, case: Case) -> None:
    """The next model comes at once; what waits for the abandoned one hears why."""
    web_server.serve("/m.gguf", BODY, manner=Manner(bytes_per_second=SLOW))
    web_server.serve("/n", BODY)
    supply = case.start(model(web_server), Model("n", "n.gguf", bytes=len(BODY) + 0, url=web_server.url("/n")))
    wait_until(lambda: supply.status()["m"]["bytes"] > 0)
    supply.abandon("m", "It would take too long.")
    assert_failed(supply.wait("m", 0), Outcome.DOWNLOAD_TOO_SLOW, "It would take too long.")
    assert isinstance(supply.wait("n", LIMIT), Supplied)
    assert case.files() == {"n.gguf", "n.gguf.sha256.json"}
    assert supply.status()["m"]["status"] == "abandoned"
    supply.abandon("n", "no")  # too late: it is there
    assert isinstance(supply.wait("n", 0), Supplied)


def test_the_speed_and_the_time_of_arrival_are_told(web_server: Server, case: Case) -> None:
    """From what is measured, for what is under way and for what stands in line."""
    web_server.serve("/m.gguf", BODY, manner=Manner(bytes_per_second=SLOW))
    later = Model("later", "later.gguf", bytes=10_000_000, url=web_server.url("/later"))
    supply = case.start(model(web_server), later)
    seen: list[dict[str, Any]] = []

    def is_measured() -> bool:
        seen.append(supply.status()["m"])
        return (seen[-1]["bytes_per_second"] or 0) > SLOW and seen[-1]["bytes"] > 1e5

    wait_until(is_measured)
    status = seen[-1]
    assert status["status"] == "downloading"
    assert status["bytes_total"] == len(BODY)
    assert status["bytes_per_second"] < 8 * SLOW  # four connections, each at that pace
    soon, late = supply.estimate_ready("m"), supply.estimate_ready("later")
    assert soon is not None
    assert late is not None
    assert 1 < soon < 120
    assert soon + 10 < late < soon + 600


TMPFS_BYTES = 4 * 1024**2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "benchctl-test", str(place)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"a small disk can't be mounted here: {done.stderr.decode().strip() or 'not root'}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_model_that_does_not_fit_is_not_begun(web_server: Server, small_disk: Path) -> None:
    """The figures are in the sentence, and nothing was asked of the server."""
    web_server.serve("/m.gguf", BODY)
    case = Case(small_disk / "models")
    fetch = FetchSettings(reserve_bytes=3 * 1024**2)
    assert_failed(case.get(model(web_server), fetch), Outcome.NO_DISK, "are free")
    assert web_server.requests() == []
    case.stop()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_disk_that_fills_in_the_middle_ends_the_model_and_is_not_left_full(
    web_server: Server, small_disk: Path, ranges: bool
) -> None:
    """Another program takes the space while the model comes; a smaller model may still fit after it."""
    web_server.serve("/m.gguf", BODY, manner=Manner(bytes_per_second=SLOW, ranges=ranges, chunked=not ranges))
    case = Case(small_disk / "models")
    fetch = FetchSettings(reserve_bytes=0, chunk_bytes=200_000, split_bytes=100_000)
    supply = case.start(model(web_server), fetch=fetch)
    wait_until(lambda: supply.status()["m"]["bytes"] > 100_000)
    with contextlib.suppress(OSError):
        (small_disk / "other").write_bytes(bytes(TMPFS_BYTES))
    assert_failed(supply.wait("m", LIMIT), Outcome.NO_DISK, "disk")
    assert case.files() == set()
    (small_disk / "other").unlink()
    wait_until(lambda: disk.free_bytes(small_disk) > TMPFS_BYTES - 200_000)
    case.stop()


def test_a_folder_that_can_not_be_written_is_said(web_server: Server, tmp_path: Path) -> None:
    """One sentence that names it."""
    (tmp_path / "file").write_text("no folder")
    case = Case(tmp_path / "file" / "models")
    web_server.serve("/m.gguf", BODY)
    assert_failed(case.get(model(web_server)), Outcome.DOWNLOAD_FAILED, str(tmp_path / "file"))
    case.stop()


PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
from llama_bench_core.supply import FetchSettings, Supply, Supplied
from llama_bench_core.values import Model
supply = Supply([Model(**json.loads(sys.argv[2]))], sys.argv[3],
                fetch=FetchSettings(reserve_bytes=0, chunk_bytes=262144, split_bytes=65536))
supply.start()
result = supply.wait("m")
print(result)
sys.exit(0 if isinstance(result, Supplied) else 1)
"""


def program(wanted: Model, folder: Path) -> subprocess.Popen[str]:
    """A process of its own that downloads."""
    facts = {
        "name": wanted.name,
        "file": wanted.file,
        "bytes": wanted.bytes,
        "sha256": wanted.sha256,
        "url": wanted.url,
    }
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, CORE, json.dumps(facts), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )


def test_after_kill_9_only_missing_ranges_are_asked_for(web_server: Server, case: Case) -> None:
    """The account beside the file is true at every moment, and the lock dies with its holder."""
    web_server.serve("/m.gguf", BODY, manner=Manner(bytes_per_second=SLOW))
    running = program(model(web_server), case.folder)
    account = case.folder / "m.gguf.part.json"
    try:
        wait_until(account.exists)
        running.send_signal(signal.SIGKILL)
    finally:
        running.kill()
        running.communicate()
    missing = json.loads(account.read_text())["missing"]
    still = sum(end - start for start, end in missing)
    assert 0 < still < len(BODY)
    web_server.serve("/m.gguf", BODY)
    before = len(web_server.requests())
    assert_whole(case, case.get(model(web_server), UNDIVIDED))
    asked = web_server.requests()[before:]
    for one in asked:
        assert one.start is not None
        assert one.end is not None
        assert any(start <= one.start < one.end <= end for start, end in missing)
        assert one.headers["if-range"] == '"one"'
    assert bytes_sent(web_server, before, still) == still


def test_two_sessions_on_one_folder_download_once(web_server: Server, case: Case) -> None:
    """The second waits for the first and uses what it got."""
    web_server.serve("/m.gguf", BODY, manner=Manner(bytes_per_second=600_000))
    both = [program(model(web_server), case.folder) for _ in range(2)]
    try:
        said = [one.communicate(timeout=LIMIT)[0] for one in both]
    finally:
        for one in both:
            one.kill()
            one.wait()
    assert [one.returncode for one in both] == [0, 0], said
    assert sum(one.sent for one in web_server.requests()) < 1.7 * len(BODY)
    assert case.files() == {"m.gguf", "m.gguf.sha256.json"}


def wait_until(true: Callable[[], bool]) -> None:
    """Wait for something that another thread or process does."""
    deadline = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def bytes_sent(web: Server, before: int, expected: int) -> int:
    """Bytes of all answers after the first so many; the server counts after it has sent, so it may be a moment late."""

    def sent() -> int:
        return sum(one.sent for one in web.requests()[before:])

    wait_until(lambda: sent() >= expected)
    return sent()
