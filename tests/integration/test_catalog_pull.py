"""Fetching the published database from a real HTTP server: ETag, checksum, atomic replacement, and what goes wrong."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import zipfile
from typing import TYPE_CHECKING

import pytest
from benchctl.catalog import gpu_prices
from benchctl.catalog.files import read_file
from benchctl.catalog.pull import ATTEMPTS, PUBLISHED, is_open_to_tampering, pull
from benchctl.catalog.values import Snapshot
from benchctl.errors import BenchctlError, UsageError
from catalog_files import DAY, KINDS, cpu_lines, write_database, write_prices
from lab.http_faults import Manner, Server, server

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Run = Callable[..., subprocess.CompletedProcess[str]]

PATH = "/sc-data/latest/sc-data-all.db.xz"


@pytest.fixture
def web() -> Iterator[Server]:
    """An HTTP server."""
    with server() as running:
        yield running


@pytest.fixture
def published(tmp_path: Path) -> bytes:
    """A small Spare Cores database, as it is published."""
    return lzma.compress(write_database(tmp_path / "published.db").read_bytes())


def test_an_unchanged_database_is_not_transferred_again(web: Server, published: bytes, tmp_path: Path) -> None:
    """The second time the ETag goes along, the answer is 304, and the file in the cache is used."""
    web.serve(PATH, published)
    first = pull(web.url(PATH), tmp_path / "cache")
    again = pull(web.url(PATH), tmp_path / "cache")
    assert (first.fresh, again.fresh) == (True, False)
    assert (first.path, first.sha256) == (again.path, again.sha256)
    assert first.sha256 == hashlib.sha256(published).hexdigest()
    assert [one.status for one in web.requests(PATH)] == [200, 304]
    assert "if-none-match" not in web.requests(PATH)[0].headers
    assert web.requests(PATH)[1].headers["if-none-match"] == '"one"'
    content = read_file(again.path).content
    assert isinstance(content, Snapshot)
    assert len(content.rows["server"]) == len(KINDS)
    assert sorted(path.name for path in first.path.parent.iterdir()) == [first.path.name, f"{first.path.name}.json"]


def test_a_new_version_replaces_the_old_one(web: Server, published: bytes, tmp_path: Path) -> None:
    """Another ETag brings the new file, whole."""
    file = web.serve(PATH, published)
    pull(web.url(PATH), tmp_path / "cache")
    file.body = lzma.compress(write_database(tmp_path / "newer.db", KINDS[:3]).read_bytes())
    file.etag = '"two"'
    newer = pull(web.url(PATH), tmp_path / "cache")
    assert (newer.fresh, newer.etag) == (True, '"two"')
    assert newer.path.read_bytes() == file.body


def test_a_file_that_was_altered_in_the_cache_is_fetched_anew(web: Server, published: bytes, tmp_path: Path) -> None:
    """The note in the cache counts only for the file that it was made for."""
    web.serve(PATH, published)
    first = pull(web.url(PATH), tmp_path / "cache")
    first.path.write_bytes(b"something else")
    again = pull(web.url(PATH), tmp_path / "cache")
    assert again.fresh
    assert again.path.read_bytes() == published


def test_a_broken_transfer_is_tried_again(web: Server, published: bytes, tmp_path: Path) -> None:
    """Cut in the middle, then overloaded, then whole: the pauses grow, and the file is right."""
    web.serve(PATH, published, Manner(cut_after=500), Manner(status=503))
    pauses: list[float] = []
    got = pull(web.url(PATH), tmp_path / "cache", wait=pauses.append)
    assert got.path.read_bytes() == published
    assert pauses == [1.0, 2.0]


@pytest.mark.parametrize(
    ("manner", "words", "requests"),
    [
        (Manner(cut_after=500), "broke", ATTEMPTS),
        (Manner(status=503), "the server answers 503", ATTEMPTS),
        (Manner(status=404), "the server answers 404", 1),
        (Manner(wrong=True), "is neither a Spare Cores database nor CSV", 1),
    ],
)
def test_what_can_not_be_fetched_replaces_nothing(
    web: Server, published: bytes, tmp_path: Path, manner: Manner, words: str, requests: int
) -> None:
    """One sentence with the address, and the file of the last time is still there, without a trace of the attempt."""
    file = web.serve(PATH, published)
    good = pull(web.url(PATH), tmp_path / "cache")
    file.etag, file.manner = '"two"', manner
    before = len(web.requests(PATH))
    with pytest.raises(BenchctlError, match=words) as caught:
        pull(web.url(PATH), tmp_path / "cache", wait=lambda _: None)
    assert web.url(PATH) in str(caught.value)
    assert len(web.requests(PATH)) - before == requests
    assert good.path.read_bytes() == published
    assert len(list(good.path.parent.iterdir())) == 2


def test_a_wrong_checksum_is_refused(web: Server, published: bytes, tmp_path: Path) -> None:
    """--sha256 takes the one file and no other, also when another one lies in the cache."""
    file = web.serve(PATH, published)
    right = hashlib.sha256(published).hexdigest()
    with pytest.raises(BenchctlError, match=f"has the SHA-256 {right}, not 00"):
        pull(web.url(PATH), tmp_path / "cache", sha256="00" * 32)
    assert pull(web.url(PATH), tmp_path / "cache", sha256=right.upper()).fresh
    assert not pull(web.url(PATH), tmp_path / "cache", sha256=right).fresh
    file.body, file.etag = lzma.compress(write_database(tmp_path / "b.db", KINDS[:2]).read_bytes()), '"two"'
    assert pull(web.url(PATH), tmp_path / "cache", sha256=hashlib.sha256(file.body).hexdigest()).fresh


def test_no_server_and_no_address(tmp_path: Path) -> None:
    """A port where nobody listens, and what is no address, end in one sentence."""
    with pytest.raises(BenchctlError, match=r"http://127.0.0.1:9/a.db can't be fetched: .*refused"):
        pull("http://127.0.0.1:9/a.db", tmp_path / "cache", wait=lambda _: None)
    for url in ("file:///etc/passwd", "sc-data.db", "https://"):
        with pytest.raises(UsageError, match="is not an address"):
            pull(url, tmp_path / "cache")


def test_what_may_be_altered_on_its_way() -> None:
    """The published address is https; http is all right on this machine only."""
    assert not is_open_to_tampering(PUBLISHED)
    assert not is_open_to_tampering("http://127.0.0.1:8000/a.db")
    assert is_open_to_tampering("http://mirror.example/a.db")


def test_pull_from_the_command_line(benchctl: Run, web: Server, published: bytes) -> None:
    """The first call fills the catalogue, the second says that nothing is new, a new database takes the cached file."""
    web.serve(PATH, published)
    done = benchctl("catalog", "pull", "--url", web.url(PATH), "--json", check=True)
    servers = json.loads(done.stdout)[0]
    assert (servers["what"], servers["new"]) == ("servers", len(KINDS))
    done = benchctl("catalog", "pull", "--url", web.url(PATH), check=True)
    assert done.stdout.startswith(f"Nothing new: {web.url(PATH)} is still the version")
    done = benchctl("catalog", "pull", check=True, env={"BENCHCTL_CATALOG_URL": web.url(PATH)})
    assert done.stdout.startswith("Nothing new")
    other = str(web.url("/other.db"))
    assert benchctl("catalog", "pull", "--url", other).returncode == 1
    rows = json.loads(benchctl("catalog", "list", "--json", check=True).stdout)
    assert len(rows) == len(KINDS)


def test_pull_into_a_second_database(benchctl: Run, web: Server, published: bytes, tmp_path: Path) -> None:
    """What one database has taken in, another one still lacks: it comes from the cache, without a transfer."""
    web.serve(PATH, published)
    cache = {"BENCHCTL_CACHE": str(tmp_path / "cache")}
    benchctl("catalog", "pull", "--url", web.url(PATH), check=True, env=cache)
    other = str(tmp_path / "other.db")
    benchctl("--db", other, "catalog", "pull", "--url", web.url(PATH), check=True, env=cache)
    assert [one.status for one in web.requests(PATH)] == [200, 304]
    assert len(json.loads(benchctl("--db", other, "catalog", "list", "--json", check=True).stdout)) == len(KINDS)


GPUHUNT_HEADER = (
    "instance_name,location,price,cpu,memory,gpu_count,gpu_name,gpu_memory,spot,disk_size,gpu_vendor,flags,cpu_arch,"
    "provider_data"
)
GPUHUNT = {
    "aws": ["m5.xlarge,us-east-1,0.192,4,16,0,,,False,,,,x86,{}"],
    "azure": [],
    "gcp": [
        "a2-highgpu-1g,us-central1-a,3.673385,12,85,1,A100,40,False,,nvidia,,x86,{}",
        "a2-highgpu-1g,us-central1-a,1.8,12,85,1,A100,40,True,,nvidia,,x86,{}",
        "a2-highgpu-1g,us-central1-a,0.5,12,85,1,A100,40,False,,nvidia,gcp-dws-calendar-mode,x86,{}",
        "n2-standard-4,us-central1-a,0.54,4,16,1,T4,16,False,,nvidia,,x86,{}",
        "broken,us-central1-a,cheap,4,16,1,T4,16,False,,nvidia,,x86,{}",
    ],
}


def write_gpuhunt(web: Server, folder: Path) -> None:
    """Gpuhunt's published catalogue: per provider a version and a zip with a CSV."""
    for provider, lines in GPUHUNT.items():
        with zipfile.ZipFile(folder / "catalog.zip", "w") as packed:
            packed.writestr(f"{provider}.csv", "\n".join([GPUHUNT_HEADER, *lines, ""]))
        web.serve(f"/v3/{provider}/version", b"20250427-123\n")
        web.serve(f"/v3/{provider}/20250427-123/catalog.zip", (folder / "catalog.zip").read_bytes())


def test_prices_with_the_gpu_from_gpuhunt(benchctl: Run, web: Server, published: bytes, tmp_path: Path) -> None:
    """They replace the flagged price, by gpuhunt's own reader; an N2 with a T4 is no price of the N2."""
    pytest.importorskip("gpuhunt", reason="the extra 'gpuhunt' is not installed")
    web.serve(PATH, published)
    write_gpuhunt(web, tmp_path)
    wrong = write_prices(
        tmp_path / "p.csv",
        *cpu_lines(),
        f"gcp,a2-highgpu-1g,us-central1,us-central1-a,ONDEMAND,0.739,USD,HOUR,theirs,{DAY},x",
    )
    benchctl("catalog", "import", wrong, check=True)
    done = benchctl(
        "catalog", "pull", "--gpuhunt", "--url", web.url(PATH), check=True, env={"GPUHUNT_CATALOG_URL": web.url("/v3")}
    )
    assert "1 prices were left out" in done.stdout
    assert "1 gpu_priced_like_cpu" in done.stdout
    listed = benchctl("catalog", "list", "prices", "--gpu", "A100", "--json", check=True)
    assert {(row["allocation"], row["price"], row["is_current"]) for row in json.loads(listed.stdout)} == {
        ("ONDEMAND", 0.739, False),
        ("ONDEMAND", 3.673385, True),
        ("SPOT", 1.8, True),
    }
    ours = next(row for row in json.loads(listed.stdout) if row["price"] == 1.8)
    assert (ours["source"], ours["source_date"], ours["zone_id"]) == ("dstackai/gpuhunt gcp", "2025-04-27", "2000")


def test_prices_from_a_local_folder_of_gpuhunt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPUHUNT_CATALOG_DIR is read without a network; a vendor that is not there is set aside."""
    pytest.importorskip("gpuhunt", reason="the extra 'gpuhunt' is not installed")
    (tmp_path / "gcp.csv").write_text("\n".join([GPUHUNT_HEADER, *GPUHUNT["gcp"], ""]))
    os.utime(tmp_path / "gcp.csv", (1_745_700_000, 1_745_700_000))
    monkeypatch.setenv("GPUHUNT_CATALOG_DIR", str(tmp_path))
    found = gpu_prices.read_gpu_prices(DAY)
    assert [str(one) for one in found.set_aside] == [
        "gpuhunt, aws: its catalogue can't be fetched", "gpuhunt, azure: its catalogue can't be fetched",
    ]  # fmt: skip
    assert {(one.server, one.price, one.gpu_count) for one in found.prices} == {
        ("a2-highgpu-1g", 3.673385, 1), ("a2-highgpu-1g", 1.8, 1), ("n2-standard-4", 0.54, 1),
    }  # fmt: skip
    assert {str(one.source_date) for one in found.prices} == {"2025-04-26"}


def test_gpuhunt_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, and none of gpuhunt's tracebacks."""
    pytest.importorskip("gpuhunt", reason="the extra 'gpuhunt' is not installed")
    monkeypatch.setenv("GPUHUNT_CATALOG_URL", "http://127.0.0.1:9")
    with pytest.raises(BenchctlError, match=r"gpuhunt can't read http://127\.0\.0\.1:9"):
        gpu_prices.read_gpu_prices(DAY)
