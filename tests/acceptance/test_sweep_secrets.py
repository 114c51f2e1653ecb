"""No secret of a sweep is written anywhere but into the key files, nor shown to other users as a process's argument.

Secrets are planted in everything that a sweep is given, a whole sweep runs with them (real engine, SSH and Ansible, the
cloud is an emulation), and then everything that was written is searched for them, in whatever spelling.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import threading
import urllib.parse
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
import sweeping

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator, Mapping

    from benchctl.home import Home
    from emulation.fixtures import Emulated

    Run = Callable[..., subprocess.CompletedProcess[str]]

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
        for spelling, name in self._spellings.items():
            if spelling in content:
                self.found.add(f"{name} in {where}")

    def _is_a_key(self, path: Path) -> bool:
        """Whether it is one of the key files themselves, which only their owner can read.

        While Ansible runs, what it is handed lies in such a file, too; afterwards it is gone.
        """
        handed = path.match("runs/*/env/extravars") and not self.ended
        return (path.parent.name == "keys" or handed) and path.stat().st_mode & 0o077 == 0

    def search_files(self, *folders: Path) -> int:
        """Look into all files, their names and packed ones included; returns how many there were."""
        count = 0
        for folder in folders:
            for path in folder.rglob("*"):
                if path.is_symlink() or not path.is_file():
                    continue
                with suppress(OSError):  # what is removed meanwhile holds nothing
                    if self._is_a_key(path):
                        continue
                    content = path.read_bytes()
                    count += 1
                    self.search(str(path), content + os.fsencode(path))
                    if content[:2] == b"\x1f\x8b":
                        self.search(f"{path} unpacked", gzip.decompress(content))
        return count


class Arguments:
    """Looks at the arguments of every process, again and again, in a thread."""

    def __init__(self, searched: Searched) -> None:
        self._searched, self._ended = searched, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.looks = 0
        self.programs: set[str] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.05):
            self.looks += 1
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    content = path.read_bytes()
                    if content:
                        self._searched.search(f"arguments: {content.replace(bytes(1), b' ').decode()}", content)
                        self.programs.add(content.split(b"\0")[0].rpartition(b"/")[2].decode())


class _Told(BaseHTTPRequestHandler):
    told: list[str]

    def do_POST(self) -> None:
        """Note what was told."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.told.append(f"{self.path} {json.loads(body)['event']}")
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def hook() -> Iterator[tuple[str, list[str]]]:
    """A web address that is told, and what it was told."""
    told: list[str] = []
    handler = type("Told", (_Told,), {"told": told})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/{HOOK_PATH}", told
    server.shutdown()
    thread.join()
    server.server_close()


def logins(environment: Mapping[str, str]) -> dict[str, str]:
    """The emulated clouds' own logins."""
    words = ("TOKEN", "SECRET", "PASSWORD")
    found = {name: value for name, value in environment.items() if value and any(one in name for one in words)}
    account = json.loads(Path(environment["GOOGLE_APPLICATION_CREDENTIALS"]).read_text())
    for number, line in enumerate(account["private_key"].splitlines()[1:-1]):
        found[f"Google's private key, line {number}"] = line
    return found


def private_keys(folder: Path) -> dict[str, str]:
    """The lines of all private keys below a folder, by the file they are of."""
    found = {}
    for path in folder.rglob("keys/*"):
        text = path.read_text()
        if "PRIVATE KEY" in text:
            # the first lines are the same in every key
            found.update({f"{path.name}, line {at}": line for at, line in enumerate(text.splitlines()[3:-1])})
    return found


def test_no_secret_is_written_or_shown(
    benchctl: Run, home: Home, backed_world: Emulated, tmp_path: Path, checkout: Path, hook: tuple[str, list[str]]
) -> None:
    """Everything below the state, the cache, the lake and the export, the database, and what other processes see."""
    # something that any search must find: else it searches for nothing
    searched = Searched()
    address, told = hook
    environment = {**backed_world.environment, **PLANTED, "PULUMI_CONFIG_PASSPHRASE_FILE": ""}
    for name, secret in {**PLANTED, **logins(backed_world.environment)}.items():
        searched.learn(name, secret)
    searched.learn("https_proxy", "planted-proxy-password")
    searched.learn("the mirror's password", MIRROR_PASSWORD)
    searched.learn("the hook's path", HOOK_PATH)
    mirror = f"http://reader:{urllib.parse.quote(MIRROR_PASSWORD, safe='')}@127.0.0.1:9/models"

    sweeping.hetzner_catalogue(benchctl, tmp_path, "cx22")
    suite = sweeping.write_suite(tmp_path, "some", "{pp: {16: 0.01}}")
    paced = sweeping.write_paced_llama_bench(tmp_path / "llama-bench", {"pp16": 2.0})
    arguments = (
        *("sweep", "--vendors", "hetzner", "--servers", "cx22", "--suite", str(suite), "--yes", "--weights", "auto"),
        *("--ingress", "203.0.113.7/32", "--poll-seconds", "1", "--llama-bench", str(paced)),
    )
    written = [home.state, home.cache, tmp_path / "export"]
    with Arguments(searched) as seen:
        sweep = sweeping.Running(
            home, {**os.environ, **environment, "BENCHCTL_MIRROR": mirror, "BENCHCTL_HOOK": address}, arguments,
            tmp_path, checkout,
        )  # fmt: skip
        try:
            sweep.until("is there, in")
            for name, secret in private_keys(home.state).items():
                searched.learn(name, secret)
            sweep.until("Measuring on")
            assert searched.search_files(*written) > 10
            assert sweep.wait() == 0, sweep.said()
        finally:
            sweep.kill()
    searched.ended = True
    assert told == [f"/{HOOK_PATH} ended"]
    assert backed_world.alive() == []
    benchctl("export", tmp_path / "export", "--format", "csv", check=True)
    searched.search("what it said", sweep.log.read_bytes())
    for command in (("status",), ("sql", "SELECT * FROM sweep", "--json"), ("sql", "SELECT * FROM job", "--json")):
        searched.search(" ".join(command), benchctl(*command, check=True).stdout.encode())
    assert searched.search_files(*written) > 10
    assert {"pulumi", "ssh"} <= seen.programs, "the arguments were looked at too seldom"
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
