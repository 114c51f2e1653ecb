"""Where Pulumi's engine is looked for, and what is said when it does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchctl.clouds import engine_binary
from benchctl.clouds.engine_binary import NoPulumiError, find, install


def engine(path: Path, says: str) -> Path:
    """A program that calls itself an engine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


def test_the_one_on_path_comes_first(tmp_path: Path) -> None:
    """Then the place of Pulumi's own installer, then the newest of the cache."""
    cache, home = tmp_path / "cache", tmp_path / "home"
    environment = {"PATH": str(tmp_path / "bin"), "HOME": str(home)}
    for version in ("v3.9.0", "v3.200.0", "v3.190.1"):
        engine(cache / "pulumi" / version / "bin" / "pulumi", version)
    assert find(cache, environment).version == (3, 200, 0)
    own = engine(home / ".pulumi" / "bin" / "pulumi", "v3.195.0")
    assert find(cache, environment) == engine_binary.PulumiEngine(own, (3, 195, 0))
    on_path = engine(tmp_path / "bin" / "pulumi", "3.272.0+dirty")
    assert find(cache, environment).describe() == f"3.272.0, {on_path}"


@pytest.mark.parametrize("says", ["v3.180.9", "v4.0.0", "v2.99.0"])
def test_one_that_does_not_fit_is_passed_over(tmp_path: Path, says: str) -> None:
    """And named when there is no other."""
    environment = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}
    old = engine(tmp_path / "bin" / "pulumi", says)
    with pytest.raises(NoPulumiError) as caught:
        find(tmp_path / "cache", environment)
    assert caught.value.problem == (
        f"Pulumi's engine {old} is version {says[1:]}; 3.181.0 or newer (but 3.x) is needed."
    )
    assert "benchctl doctor --fix" in caught.value.mend
    new = engine(tmp_path / "cache" / "pulumi" / "v3.200.0" / "bin" / "pulumi", "v3.200.0")
    assert find(tmp_path / "cache", environment).path == new


def test_something_else_that_is_called_pulumi(tmp_path: Path) -> None:
    odd = engine(tmp_path / "bin" / "pulumi", "hello")
    with pytest.raises(NoPulumiError, match=f"{odd} does not say which version"):
        find(tmp_path / "cache", {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)})


def test_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(NoPulumiError, match="is not on this machine"):
        find(tmp_path / "cache", {"PATH": "/nowhere", "HOME": str(tmp_path)})


def test_installing_without_a_network_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells what could not be reached and what a proxy is set by; nothing half made is left to be found."""
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    lines: list[str] = []
    with pytest.raises(NoPulumiError, match=r"^Pulumi's installer could not be fetched: .*HTTPS_PROXY"):
        install(tmp_path, lines.append)
    assert len(lines) == 1
    assert not list(tmp_path.rglob("pulumi/*/bin/pulumi"))


def test_an_installer_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pulumi's script is fetched, and what it says last is the reason."""
    from pulumi.automation import _cmd

    def script(url: str, path: str) -> None:
        assert url == "https://get.pulumi.com/install.sh"
        Path(path).write_text("#!/bin/sh\necho downloading\necho 'error: no space left on device'\nexit 1\n")

    monkeypatch.setattr(_cmd, "_download_to_file", script)
    with pytest.raises(NoPulumiError, match=r"could not be installed: error: no space left on device\. "):
        install(tmp_path, lambda _: None)


def test_installing_puts_the_engine_into_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the version of the SDK, where it is then found."""
    from pulumi.automation import _cmd

    def script(url: str, path: str) -> None:  # noqa: ARG001
        Path(path).write_text(
            "#!/bin/sh\nwhile [ $# -gt 0 ]; do case $1 in --install-root) r=$2;; --version) v=$2;; esac; shift; done\n"
            'mkdir -p "$r/bin" && printf "#!/bin/sh\\necho v$v\\n" >"$r/bin/pulumi" && chmod +x "$r/bin/pulumi"\n'
        )

    monkeypatch.setattr(_cmd, "_download_to_file", script)
    got = install(tmp_path, lambda _: None)
    assert got.path == tmp_path / "pulumi" / f"v{got.version_text}" / "bin" / "pulumi"
    assert find(tmp_path, {"PATH": "/nowhere", "HOME": str(tmp_path / "home")}) == got
