"""Real databases and file systems for tests: SQLite always, PostgreSQL where its server is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from benchctl.db.engine import open_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine


@pytest.fixture(scope="session")
def postgres_socket() -> Iterator[Path]:
    """Folder of the socket of a real PostgreSQL server, made for this test run and removed after it."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    if not binaries:
        pytest.skip("no PostgreSQL server is installed (apt-get install postgresql)")
    pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    as_root = os.getuid() == 0
    user = None
    if as_root:
        try:
            user = pwd.getpwnam("postgres").pw_name  # the server refuses to run as root
        except KeyError:
            pytest.skip("the server can't run as root, and there is no user postgres")
    folder = Path(tempfile.mkdtemp(prefix="benchctl-pg-", dir="/tmp"))
    if user:
        shutil.chown(folder, user)
    tools = binaries[-1].parent
    settings = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    control = [str(tools / "pg_ctl"), "-D", str(folder / "data"), "-w"]
    try:
        subprocess.run(
            [str(tools / "initdb"), "-D", str(folder / "data"), "-A", "trust", "-U", "postgres", "-E", "UTF8"],
            check=True, capture_output=True, user=user, cwd="/",
        )  # fmt: skip
        subprocess.run(
            [*control, "-l", str(folder / "log"), "-o", settings, "start"],
            check=True, stdout=subprocess.DEVNULL, user=user, cwd="/",
        )  # fmt: skip
        yield folder
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, capture_output=True, user=user, cwd="/")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def new_postgres_database(postgres_socket: Path) -> Callable[[], str]:
    """Makes empty PostgreSQL databases; gives the URL of each."""
    import psycopg

    def make() -> str:
        name = f"test_{uuid4().hex}"
        with psycopg.connect(
            host=str(postgres_socket), user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql://postgres@/{name}?host={postgres_socket}"

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    url: str = request.getfixturevalue("new_postgres_database")()
    return url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An empty database at the newest schema, opened."""
    opened = open_database(database_url)
    try:
        yield opened
    finally:
        opened.dispose()


@pytest.fixture
def tmpfs() -> Iterator[Callable[[int], Path]]:
    """Makes real file systems of so many bytes, which are gone after the test."""
    if os.getuid() != 0:
        pytest.skip("only root can mount a small file system")
    made: list[Path] = []

    def make(size: int) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="benchctl-tmpfs-", dir="/tmp"))
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
        )
        if mounted.returncode:
            folder.rmdir()
            pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
        made.append(folder)
        return folder

    yield make
    for folder in made:
        subprocess.run(["umount", "-l", str(folder)], check=False)
        folder.rmdir()
