"""Databases for tests: SQLite in a file, and a PostgreSQL of the tests' own on loopback, which ends with them."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from instar.system.files import remove_tree


def postgresql_programs() -> Path:
    """The folder of initdb and pg_ctl; Debian keeps them out of the PATH."""
    on_path = shutil.which("initdb")
    found = [Path(on_path).parent] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version)
    assert found, "PostgreSQL is not installed: scripts/test says how"
    return found[-1]


def _version(folder: Path) -> int:
    return int(folder.parent.name)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Cluster:
    """A running PostgreSQL; not durable, for the tests' processes die and the machine does not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._bin = postgresql_programs()
        # It refuses to run as root.
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            shutil.chown(folder, nobody.pw_uid, nobody.pw_gid)
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self._run("initdb", "--auth=trust", "--username=instar", "--encoding=UTF8", "--locale=C", "--no-sync", "data")

    def start(self) -> None:
        options = (
            f"-p {self.port} -h 127.0.0.1 -k {self.folder} -c fsync=off -c full_page_writes=off "
            "-c synchronous_commit=off -c deadlock_timeout=200ms -c max_connections=60"
        )
        self._run("pg_ctl", "start", "--wait", "-D", "data", "-l", "log", "-o", options)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "--wait", "-D", "data", "-m", "immediate")

    def new_database(self) -> str:
        """The address of a new, empty database."""
        name = f"t{uuid.uuid4().hex}"
        with psycopg.connect(self.address("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.address(name)

    def address(self, name: str) -> str:
        return f"postgresql://instar@127.0.0.1:{self.port}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._bin / program, *arguments],
            cwd=self.folder,
            check=False,
            # Not pipes: the server that pg_ctl leaves behind would hold them open.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            **self._as,
        )
        log = self.folder / "log"
        assert done.returncode == 0, f"{program} failed: {log.read_text() if log.exists() else ''}"


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A cluster below the temporary folder: the path of its socket must be short, and others must reach it."""
    folder = Path(tempfile.mkdtemp(prefix="instar-pg-"))
    folder.chmod(0o755)
    try:
        cluster = Cluster(folder)
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        remove_tree(folder)
