"""No secret of a sweep is written anywhere but into the key files, nor shown to other users as a process's argument.

Secrets are planted in everything that a sweep is given, a whole sweep runs with them (real engine, SSH and Ansible, the
cloud is an emulation), and then everything that was written is searched for them, in whatever spelling.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import tempfile
import threading
import urllib.parse
import zlib
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sweeping

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Mapping

    from benchctl.home import Home
    from emulation.fixtures import Emulated

    Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.timeout(1500)  # longer than what is waited for inside, which says more

PLANTED = {
    "AWS_SECRET_ACCESS_KEY": "aws/Secret+Planted0aws/Secret+Planted0aws",
    "AWS_SESSION_TOKEN": "aws-session-planted-IQoJb3JpZ2luX2VjEXAMPLE",
    "ARM_CLIENT_SECRET": "azure~Planted.Secret_8Q~0123456789abcdefghijkl",
    "AZURE_CLIENT_SECRET": "azure~Other.Planted_7Q~0123456789abcdefghijkl",
    "GOOGLE_OAUTH_ACCESS_TOKEN": "ya29.planted-google-token-0123456789",
    "UPCLOUD_PASSWORD": "upcloud planted & password?",
    "HF_TOKEN": "hf_plantedHuggingFaceToken0123456789",
    "HUGGING_FACE_HUB_TOKEN": "hf_otherPlantedHuggingFaceToken01234",
    "PULUMI_CONFIG_PASSPHRASE": "planted passphrase of the state, with spaces",
    "PULUMI_ACCESS_TOKEN": "pul-planted0123456789abcdef0123456789abcdef01",
    "https_proxy": "http://proxy-user:planted-proxy-password@127.0.0.1:9",
}
"""What a user's environment holds besides the emulated clouds' own logins."""

MIRROR_PASSWORD = "planted/mirror+password"  # noqa: S105
HOOK_PATH = "planted-hook-path-0123456789"
CATALOGUE_QUERY = "planted-signature-0123456789"


def spellings(secret: str) -> set[bytes]:
    """A secret as it may be written: plain, in JSON, in a URL, in base64 at each of the three offsets."""
    plain = secret.encode()
    found = {plain, json.dumps(secret)[1:-1].encode()}
    found |= {quote(secret, safe="").encode() for quote in (urllib.parse.quote, urllib.parse.quote_plus)}
    for before in range(3):
        # the digits that depend on what stands around it are left out
        text = base64.b64encode(b"\0" * before + plain)
        inner = text[(0, 2, 3)[before] :].rstrip(b"=")[:-1]
        found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return found


class Searched:
    """The secrets that are known so far, and where one of them was found."""

    def __init__(self) -> None:
        self._spellings: dict[bytes, str] = {}
        self.found: set[str] = set()
        self.ended = False

    def learn(self, name: str, secret: str) -> None:
        """One more secret."""
        for one in spellings(secret):
            assert len(one) >= 8
            self._spellings[one] = name

    def search(self, where: str, content: bytes) -> None:
        """Look into something."""
        for spelling, name in tuple(self._spellings.items()):  # more are learnt meanwhile
            if spelling in content:
                self.found.add(f"{name} in {where}")

    def _is_a_key(self, path: Path) -> bool:
        """Whether it is one of the key files themselves, which only their owner can read.

        While Ansible runs, what it is handed, and what it hands on, lies in such files, too; afterwards they are gone.
        """
        handed = path.match("runs/*/env/extravars") or path.match(".ansible/tmp/ansible-local-*/*")
        return (path.parent.name == "keys" or (handed and not self.ended)) and path.stat().st_mode & 0o077 == 0

    def search_files(self, folder: Path) -> int:
        """Look into all files, their names and packed ones included; returns how many there were."""
        count = 0
        # folders that go meanwhile are left out by this walk, which Path.rglob does not bear
        for path in (Path(inside, name) for inside, _, names in os.walk(folder) for name in names):
            # what is removed meanwhile holds nothing; what is packed by half until now was searched as it is
            with suppress(OSError, EOFError, zlib.error):
                if path.is_symlink() or not path.is_file() or self._is_a_key(path):
                    continue
                content = path.read_bytes()
                count += 1
                self.search(str(path), content + os.fsencode(path))
                if content[:2] == b"\x1f\x8b":
                    self.search(f"{path} unpacked", gzip.decompress(content))
        return count


class Watched(sweeping.Watcher):
    """Looks at the arguments of every process, and into places where files come and go, again and again, in a thread.

    Attributes:
        programs: names of the programs whose arguments were seen.
        files: the most files that were seen in a place at once.
    """

    def __init__(self, searched: Searched, *places: Path) -> None:
        super().__init__(0.05)
        self._searched = searched
        self.programs: set[str] = set()
        self.files = dict.fromkeys(places, 0)

    def look(self) -> None:
        """See :class:`sweeping.Watcher`."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                content = path.read_bytes()
                if content:
                    words = content.decode(errors="replace").split("\0")
                    self._searched.search(f"arguments: {' '.join(words)}", content)
                    self.programs.add(words[0].rpartition("/")[2])
        for place, most in self.files.items():
            self.files[place] = max(most, self._searched.search_files(place) + self._look_at_unnamed(place))

    def _look_at_unnamed(self, place: Path) -> int:
        """Look into files that our processes have open there, and that have no name: the engine's events."""
        count = 0
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if b"benchctl" not in path.read_bytes():
                    continue
                for link in path.with_name("fd").iterdir():
                    if link.readlink().is_relative_to(place):
                        self._searched.search(f"a file of {place} without a name", link.read_bytes())
                        count += 1
        return count


@dataclass(frozen=True)
class Web:
    """A web server: it is told of events, and serves one file.

    Attributes:
        address: where it listens.
        told: what it was told.
        served: what it answers to whoever asks.
    """

    address: str
    told: list[str]
    served: Path


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """A web server of the user's."""
    told: list[str] = []
    served = tmp_path / "catalogue.db"

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Note what was told."""
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.append(f"{self.path} {json.loads(body)['event']}")
            self.send_response(204)
            self.end_headers()

        def do_GET(self) -> None:
            """The file."""
            self.send_response(200)
            self.end_headers()
            self.wfile.write(served.read_bytes())

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Web(f"http://127.0.0.1:{server.server_address[1]}", told, served)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def user() -> Iterator[Path]:
    """A user's own folder. Its path is short, as those of users are: Ansible's sockets lie below."""
    with tempfile.TemporaryDirectory(prefix="benchctl-user-") as folder:
        yield Path(folder)


def logins(environment: Mapping[str, str]) -> dict[str, str]:
    """The emulated clouds' own logins."""
    words = ("TOKEN", "SECRET", "PASSWORD")
    found = {name: value for name, value in environment.items() if value and any(one in name for one in words)}
    account = json.loads(Path(environment["GOOGLE_APPLICATION_CREDENTIALS"]).read_text())
    for number, line in enumerate(account["private_key"].splitlines()[1:-1]):
        found[f"Google's private key, line {number}"] = line
    return found


def private_keys(home: Home) -> dict[str, str]:
    """The lines of all private keys of the sweeps, by the file they are of."""
    found = {}
    for path in home.sweeps.glob("*/keys/*"):
        try:
            text = path.read_text()
        except FileNotFoundError:  # others come and go there
            continue
        if "PRIVATE KEY" in text:
            # the first lines are the same in every key
            found.update({f"{path.name}, line {at}": line for at, line in enumerate(text.splitlines()[3:-1])})
    return found


def test_no_secret_is_written_or_shown(
    benchctl: Run, home: Home, backed_world: Emulated, tmp_path: Path, checkout: Path, web: Web, user: Path
) -> None:
    """In the state, cache, export, home and temporary files, what commands say, and processes' arguments."""
    # something that any search must find: else it searches for nothing
    searched = Searched()
    temporary, exported = tmp_path / "tmp", tmp_path / "export"
    temporary.mkdir()
    places = {"HOME": str(user), "TMPDIR": str(temporary), "BENCHCTL_CACHE": str(home.cache)}
    more = {"PULUMI_CONFIG_PASSPHRASE_FILE": "", "BENCHCTL_HOOK": f"{web.address}/{HOOK_PATH}"}
    environment = {**backed_world.environment, **PLANTED, **more, **places}
    for name, secret in {**PLANTED, **logins(backed_world.environment)}.items():
        searched.learn(name, secret)
    searched.learn("https_proxy", "planted-proxy-password")
    searched.learn("the mirror's password", MIRROR_PASSWORD)
    searched.learn("the hook's path", HOOK_PATH)
    searched.learn("the catalogue's query", CATALOGUE_QUERY)
    mirror = f"http://reader:{urllib.parse.quote(MIRROR_PASSWORD, safe='')}@127.0.0.1:9/models"

    sweeping.hetzner_catalogue(benchctl, tmp_path, "cx22")
    suite = sweeping.write_suite(tmp_path, "some", "{pp: {16: 0.01}}")
    paced = sweeping.write_paced_llama_bench(tmp_path / "llama-bench", {"pp16": 10.0})
    arguments = (
        *("sweep", "--vendors", "hetzner", "--servers", "cx22", "--suite", str(suite), "--yes", "--weights", "auto"),
        *("--ingress", "203.0.113.7/32", "--poll-seconds", "1", "--llama-bench", str(paced)),
    )
    pulled = f"{web.address}/{web.served.name}?signature={CATALOGUE_QUERY}"
    for _ in range(2):  # the second time there is nothing new, which it says
        done = benchctl("catalog", "pull", "--url", pulled, env=environment, check=True)
        searched.search("catalog pull", done.stdout.encode() + done.stderr.encode())
    with Watched(searched, user, temporary) as seen:
        sweep = sweeping.Running(
            home, {**os.environ, **environment, "BENCHCTL_MIRROR": mirror}, arguments,
            tmp_path, checkout,
        )  # fmt: skip
        try:
            sweep.until("is there, in")
            keys = private_keys(home)
            assert keys, sweep.said()
            for name, secret in keys.items():
                searched.learn(name, secret)
            sweep.until("Measuring on")
            assert searched.search_files(home.state) > 10
            assert sweep.wait() == 0, sweep.said()
        finally:
            sweep.kill()
    searched.ended = True
    assert web.told == [f"/{HOOK_PATH} ended"]
    assert backed_world.alive() == []
    benchctl("export", exported, "--format", "csv", check=True)
    searched.search("what it said", sweep.log.read_bytes())
    tables = [
        ("sql", query, "--json")
        for query in ("SELECT * FROM sweep", "SELECT * FROM job", "SELECT * FROM catalog_source")
    ]
    for command in (("status",), *tables, ("reap", "--settle", "0", "--vendors", "hetzner")):
        done = benchctl(*command, env=environment, check=True)
        searched.search(" ".join(command), done.stdout.encode() + done.stderr.encode())
    assert {"pulumi", "ssh"} <= seen.programs, "the arguments were looked at too seldom"
    assert all(seen.files.values()), f"nothing was ever seen in one of {seen.files}"
    for place in (home.state, home.cache, exported):
        assert searched.search_files(place) > 1, place
    for place in seen.files:
        searched.search_files(place)  # whatever is left there
    assert sorted(searched.found) == []


def test_the_search_finds_every_spelling(tmp_path: Path) -> None:
    """The search itself: plain, quoted, in JSON, in base64 wherever it begins, and packed."""
    planted = 'pa"ss/word+with?all& of it'
    places = [
        planted, json.dumps({"it": planted}), urllib.parse.quote(planted, safe=""), urllib.parse.quote_plus(planted),
        *(base64.b64encode(f"{'x' * at}{planted}{'y' * at}".encode()).decode() for at in range(4)),
    ]  # fmt: skip
    for number, text in enumerate(places):
        searched = Searched()
        searched.learn("it", planted)
        (tmp_path / "file").write_bytes(gzip.compress(text.encode()) if number % 2 else text.encode())
        assert searched.search_files(tmp_path) == 1
        assert searched.found, text
