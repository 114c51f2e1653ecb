"""Addresses, redirects, the token, and what an answer means."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from lab.http_faults import Manner, server
from llama_bench_core.delivery import DownloadError, FetchSettings
from llama_bench_core.values import Model
from llama_bench_core.web import (
    ChangedError,
    HiccupError,
    RefusedError,
    Web,
    addresses,
    pause_seconds,
    probe_reachable,
    retry_after_seconds,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lab.http_faults import Server

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.fixture
def web_server() -> Iterator[Server]:
    """A server on loopback."""
    with server() as running:
        yield running


@pytest.fixture
def token_file(tmp_path: Path) -> str:
    """A file with a token in it."""
    path = tmp_path / "token"
    path.write_text("hf_secret\n")
    return str(path)


def test_a_mirror_is_asked_before_the_origin() -> None:
    """By file name, below its prefix; a folder will do as well."""
    model = Model("m", "a b.gguf", url="https://origin/x/y.gguf")
    assert addresses(model, "http://mirror/models/") == ["http://mirror/models/a%20b.gguf", "https://origin/x/y.gguf"]
    assert addresses(model, "/srv/models") == ["file:///srv/models/a%20b.gguf", "https://origin/x/y.gguf"]
    assert addresses(Model("m", "f")) == []


def test_what_is_shown_of_a_url_holds_no_secret() -> None:
    """Users, passwords and signed queries stay out of messages and files."""
    assert shown("https://me:pw@host:8443/a/b?sig=abc#x") == "https://host:8443/a/b"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("120", 120.0), ("Tue, 14 Nov 2023 22:15:20 GMT", 120.0), ("Tue, 14 Nov 2023 22:00:00 GMT", 0.0), ("soon", None)],
)
def test_retry_after_is_seconds_or_a_date(header: str, seconds: float | None) -> None:
    """Both forms of RFC 9110, and nothing for what is neither."""
    assert retry_after_seconds(header, NOW) == seconds


def test_pauses_double_up_to_a_limit_with_jitter() -> None:
    """Half to the whole of 1, 2, 4, ... seconds."""
    settings = FetchSettings(backoff_seconds=1, backoff_limit_seconds=5)
    hiccup = HiccupError("x")
    assert [pause_seconds(settings, 1.0, n, hiccup) for n in (1, 2, 3, 4, 9)] == [1, 2, 4, 5, 5]
    assert [pause_seconds(settings, 0.0, n, hiccup) for n in (1, 2)] == [0.5, 1]


def test_a_server_may_ask_for_a_pause_but_not_for_any() -> None:
    """What it asks for is kept to, plus a little jitter; hours are a refusal."""
    settings = FetchSettings(retry_after_limit_seconds=300)
    assert pause_seconds(settings, 0.0, 1, HiccupError("x", 120)) == 120
    assert pause_seconds(settings, 1.0, 1, HiccupError("x", 120)) == pytest.approx(132)
    with pytest.raises(RefusedError, match="come back in 3600 s"):
        pause_seconds(settings, 0.0, 1, HiccupError("x", 3600))


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451, 501])
def test_the_last_word_of_a_server_is_known(web_server: Server, status: int) -> None:
    """Asking again would not help, and the sentence says what was answered."""
    web_server.serve("/f", b"GGUF", Manner(status=status))
    with pytest.raises(RefusedError, match=rf"127\.0\.0\.1 answered {status} .*for /f"):
        Web(FetchSettings()).ask(web_server.url("/f"), NOW)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_known(web_server: Server, status: int) -> None:
    """Such an answer may be another one the next time."""
    web_server.serve("/f", b"GGUF", Manner(status=status, headers={"Retry-After": "7"}))
    with pytest.raises(HiccupError) as caught:
        Web(FetchSettings()).ask(web_server.url("/f"), NOW)
    assert caught.value.retry_after_seconds == 7


def test_a_piece_is_asked_for_and_understood(web_server: Server) -> None:
    """First byte, size of the whole file, and what tells its version."""
    web_server.serve("/f", b"0123456789")
    answer = Web(FetchSettings()).ask(web_server.url("/f"), NOW, 2, 5)
    assert (answer.start, answer.total, answer.ranged, answer.validator) == (2, 10, True, '"one"')
    assert answer.read(100) == b"234"
    answer.close()


def test_a_changed_file_is_noticed(web_server: Server) -> None:
    """Pieces of two versions never come together."""
    web_server.serve("/f", b"0123456789", etag='"two"')
    with pytest.raises(ChangedError):
        Web(FetchSettings()).ask(web_server.url("/f"), NOW, 2, 5, '"one"')
    with pytest.raises(ChangedError):
        Web(FetchSettings()).ask(web_server.url("/f"), NOW, 20, 25)


def test_a_weak_etag_tells_no_version(web_server: Server) -> None:
    """It may stay the same when the bytes do not."""
    web_server.serve("/f", b"0123456789", etag='W/"one"')
    answer = Web(FetchSettings()).ask(web_server.url("/f"), NOW, 0, 5)
    assert answer.validator == ""
    answer.close()


def test_a_server_that_is_silent_or_gone_may_be_back() -> None:
    """Silence ends after the stall time."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/f"
        began = time.monotonic()
        with pytest.raises(HiccupError, match="did not answer in time"):
            Web(FetchSettings(stall_seconds=0.3)).ask(url, NOW)
        assert time.monotonic() - began < 30
    with pytest.raises(HiccupError, match="could not be asked"):
        Web(FetchSettings()).ask(url, NOW)


@pytest.mark.parametrize("url", ["nonsense", "ftp://host/f", "http://ho st/f", "http://host:port/f"])
def test_what_is_no_url_is_refused(url: str) -> None:
    """With a sentence, not with a traceback."""
    with pytest.raises(RefusedError):
        Web(FetchSettings()).ask(url, NOW)


def test_the_token_goes_to_its_host_and_to_no_other(web_server: Server, token_file: str) -> None:
    """A redirect on the same host keeps it, one to another address loses it."""
    settings = FetchSettings(token_file=token_file, token_host="127.0.0.1")  # noqa: S106 - a host
    with server() as other:
        other.serve("/cdn", b"GGUF")
        web_server.serve("/moved", b"", Manner(status=302, headers={"Location": other.url("/cdn")}))
        web_server.serve("/f", b"", Manner(status=307, headers={"Location": "/moved"}))
        Web(settings).ask(web_server.url("/f"), NOW).close()
        assert [one.headers.get("authorization") for one in web_server.requests()] == ["Bearer hf_secret"] * 2
        assert [one.headers.get("authorization") for one in other.requests()] == [None]


def test_a_host_that_the_token_is_not_for_does_not_see_it(web_server: Server, token_file: str) -> None:
    """A mirror for instance."""
    web_server.serve("/f", b"GGUF")
    Web(FetchSettings(token_file=token_file)).ask(web_server.url("/f"), NOW).close()
    assert "authorization" not in web_server.requests()[0].headers


def test_a_permanent_redirect_is_followed_with_the_range(web_server: Server) -> None:
    """308, which older Pythons do not know."""
    web_server.serve("/f", b"", Manner(status=308, headers={"Location": "/g"}))
    web_server.serve("/g", b"0123456789")
    answer = Web(FetchSettings()).ask(web_server.url("/f"), NOW, 2, 5)
    assert answer.read(10) == b"234"
    answer.close()


def test_a_redirect_in_circles_ends(web_server: Server) -> None:
    """With the server's last word."""
    web_server.serve("/f", b"", manner=Manner(status=302, headers={"Location": "/f"}))
    with pytest.raises(RefusedError, match="leads nowhere"):
        Web(FetchSettings()).ask(web_server.url("/f"), NOW)


def test_an_unusable_token_or_ca_file_is_said(tmp_path: Path) -> None:
    """The sentence names the file and not what is in it."""
    bad = tmp_path / "bad"
    bad.write_text("two words\nand more")
    with pytest.raises(DownloadError, match="holds no token") as caught:
        Web(FetchSettings(token_file=str(bad)))
    assert "words" not in str(caught.value)
    with pytest.raises(DownloadError, match="can't be read"):
        Web(FetchSettings(token_file=str(tmp_path / "none")))
    with pytest.raises(DownloadError, match="can't be used"):
        Web(FetchSettings(ca_file=str(bad)))


def test_reachable_is_what_answers_with_data(web_server: Server, tmp_path: Path) -> None:
    """Not an error, not silence, and never an exception."""
    web_server.serve("/f", b"GGUF")
    (tmp_path / "f").write_bytes(b"GGUF")
    assert probe_reachable(web_server.url("/f"), timeout=60)
    assert probe_reachable((tmp_path / "f").as_uri(), timeout=60)
    assert not probe_reachable(web_server.url("/none"), timeout=60)
    assert not probe_reachable("nonsense", timeout=60)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        assert not probe_reachable(f"http://127.0.0.1:{silent.getsockname()[1]}/f", timeout=0.2)
        assert time.monotonic() - began < 30


def test_the_environment_s_proxy_is_used(web_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """As urllib does, so that a target behind one can download."""
    web_server.serve("http://models.example/f", b"GGUF")
    monkeypatch.setenv("http_proxy", web_server.url(""))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    Web(FetchSettings()).ask("http://models.example/f", NOW).close()
    assert web_server.requests()[0].path == "http://models.example/f"


def test_a_certificate_that_is_not_trusted_is_the_last_word_and_a_ca_file_helps(tmp_path: Path) -> None:
    """A company's own mirror."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate, and is not installed")
    subprocess.run([*command, "-keyout", key, "-out", certificate, *subject], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with server(context) as secure:
        secure.serve("/f", b"GGUF")
        url = f"https://localhost:{secure.port}/f"
        with pytest.raises(RefusedError, match="certificate of localhost is not trusted"):
            Web(FetchSettings()).ask(url, NOW)
        answer = Web(FetchSettings(ca_file=str(certificate))).ask(url, NOW)
        assert answer.read(4) == b"GGUF"
        answer.close()
        secure.serve("/g", b"", Manner(status=302, headers={"Location": "http://localhost/g"}))
        with pytest.raises(RefusedError, match="not encrypted"):
            Web(FetchSettings(ca_file=str(certificate))).ask(f"https://localhost:{secure.port}/g", NOW)
