"""The command line that the TUF conformance suite drives, against a real web server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, MetaFile, TargetFile

from instar.testing.conformance import main
from instar.testing.http import FaultyServer
from instar.testing.repository import TwinRepository, make_key, saved, swap_target

MANIFEST = "app/linux-x86_64-1.0.manifest"


class Suite:
    """What the suite does: it knows a client by its exit codes and the files in its folder."""

    def __init__(self, server: FaultyServer, folder: Path) -> None:
        self.metadata, self.targets = folder / "metadata", folder / "targets"
        self.metadata.mkdir()
        self.targets.mkdir()
        self._server = server
        self._root = folder / "initial_root.json"

    def init(self, root: bytes) -> int:
        self._root.write_bytes(root)
        return main(["--metadata-dir", str(self.metadata), "init", str(self._root)])

    def refresh(self) -> int:
        url = f"{self._server.url}/metadata"
        return main(["--metadata-url", url, "--metadata-dir", str(self.metadata), "refresh"])

    def download(self, name: str) -> int:
        places = ["--metadata-url", f"{self._server.url}/metadata/", "--metadata-dir", str(self.metadata)]
        wanted = ["--target-name", name, "--target-dir", str(self.targets)]
        return main([*places, *wanted, "--target-base-url", f"{self._server.url}/targets/", "download"])

    def trusted(self) -> dict[str, int]:
        paths = sorted(self.metadata.glob("*.json"))
        return {path.stem: json.loads(path.read_bytes())["signed"]["version"] for path in paths}

    def downloaded(self) -> list[bytes]:
        return [path.read_bytes() for path in self.targets.rglob("*") if path.is_file()]


@pytest.fixture
def twin() -> TwinRepository:
    return TwinRepository()


@pytest.fixture
def server(twin: TwinRepository) -> Iterator[FaultyServer]:
    with FaultyServer(twin.storage) as server:
        yield server


@pytest.fixture
def suite(server: FaultyServer, tmp_path: Path) -> Suite:
    return Suite(server, tmp_path)


def requests(server: FaultyServer) -> list[str]:
    return [request.key for request in server.received]


def test_init_and_refresh(twin: TwinRepository, server: FaultyServer, suite: Suite) -> None:
    assert suite.init(twin.root) == 0
    assert suite.trusted() == {"root": 1}
    assert requests(server) == []
    assert suite.refresh() == 0
    assert requests(server) == [
        "metadata/2.root.json",
        "metadata/timestamp.json",
        "metadata/1.snapshot.json",
        "metadata/1.targets.json",
    ]
    assert suite.trusted() == {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}
    for role in ("timestamp", "snapshot", "targets"):
        stored = twin.fetch(f"metadata/{'' if role == 'timestamp' else '1.'}{role}.json", 10_000)
        assert (suite.metadata / f"{role}.json").read_bytes() == stored


def test_a_new_root_is_followed_and_kept(twin: TwinRepository, suite: Suite) -> None:
    suite.init(twin.root)
    twin.forge("root", lambda root: setattr(root, "version", 2), signers=[twin.owner])
    assert suite.refresh() == 0
    assert suite.trusted()["root"] == 2


@pytest.mark.parametrize("damage", [b"", b"{}", None], ids=["empty", "no-root", "unsigned"])
def test_an_invalid_initial_root_fails_and_asks_for_nothing(
    twin: TwinRepository, server: FaultyServer, suite: Suite, damage: bytes | None
) -> None:
    if damage is None:
        document = json.loads(twin.root)
        document["signatures"][0]["sig"] = "00" * 64
        damage = json.dumps(document).encode()
    assert suite.init(damage) == 1
    assert suite.refresh() == 1
    assert requests(server) == []


def test_refresh_without_init_fails(suite: Suite) -> None:
    assert suite.refresh() == 1


def test_a_target_is_downloaded_once(twin: TwinRepository, server: FaultyServer, suite: Suite) -> None:
    suite.init(twin.root)
    twin.put(MANIFEST, b"content")
    assert suite.download(MANIFEST) == 0
    assert suite.downloaded() == [b"content"]
    before = len(server.received)
    assert suite.download(MANIFEST) == 0
    assert not any(request.key.startswith("targets/") for request in server.received[before:])


def test_a_target_that_does_not_exist_fails_after_the_metadata_was_refreshed(
    twin: TwinRepository, suite: Suite
) -> None:
    suite.init(twin.root)
    assert suite.download("nonexistent artifact") == 1
    assert suite.trusted() == {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}


def test_the_wrong_target_is_not_kept(twin: TwinRepository, suite: Suite) -> None:
    suite.init(twin.root)
    twin.put(MANIFEST, b"content")
    twin.put("app/channels.json", b"channel")
    assert suite.download(MANIFEST) == 0
    for key in saved(twin.storage):
        if key.startswith("targets/"):
            twin.storage.write(key, b"malicious data that is longer than what was signed")
    assert suite.download(MANIFEST) == 0
    assert suite.download("app/channels.json") == 1
    for key in saved(twin.storage):
        if key.startswith("targets/"):
            twin.storage.write(key, b"malice!")
    assert suite.download("app/channels.json") == 1
    assert suite.downloaded() == [b"content"]


def test_arbitrary_software_is_refused(twin: TwinRepository, suite: Suite) -> None:
    suite.init(twin.root)
    twin.put(MANIFEST, b"content")
    twin.forge("app", swap_target(MANIFEST, b"evil"), signers=[make_key()], link=True)
    assert suite.download(MANIFEST) == 1
    assert suite.downloaded() == []


def test_rollback_is_refused(twin: TwinRepository, suite: Suite) -> None:
    suite.init(twin.root)
    old = twin.fetch("metadata/timestamp.json", 10_000)
    twin.put(MANIFEST, b"content")
    assert suite.refresh() == 0
    twin.storage.write("metadata/timestamp.json", old)
    assert suite.refresh() == 1
    assert suite.trusted()["timestamp"] == 2


@pytest.mark.parametrize("role", ["?", "#", "/delegatedrole", "../delegatedrole", "a b", "ä"])
def test_odd_names_of_roles_are_quoted(twin: TwinRepository, server: FaultyServer, suite: Suite, role: str) -> None:
    """From another publisher's tool: a role's name is a part of addresses and of file names."""
    from urllib.parse import quote

    from tuf.api.metadata import DelegatedRole, Targets

    key = make_key()

    def delegate(targets: Any) -> None:
        targets.version += 1
        targets.delegations.roles[role] = DelegatedRole(role, [], 1, terminating=False, paths=["*"])
        targets.add_key(key.public_key, role)

    odd = Metadata(Targets(expires=Metadata.from_bytes(twin.root).signed.expires))
    odd.signed.targets["found"] = TargetFile.from_data("found", b"content", ["sha256"])
    odd.sign(key)
    twin.storage.write(f"metadata/1.{quote(role, '')}.json", odd.to_bytes())
    twin.storage.write(f"targets/{odd.signed.targets['found'].hashes['sha256']}.found", b"content")
    twin.forge("targets", delegate, signers=[twin.owner], link=True)
    twin.forge(
        "snapshot",
        lambda snapshot: (snapshot.meta.update({f"{role}.json": MetaFile(1)}), setattr(snapshot, "version", 9)),
        signers=[twin.online],
        link=True,
    )
    suite.init(twin.root)
    assert suite.download("nonexistent target") == 1
    assert f"metadata/1.{quote(role, '')}.json" in requests(server)
    assert len(suite.trusted()) == 5
    assert suite.download("found") == 0
    assert suite.downloaded() == [b"content"]


def test_unknown_fields_belong_to_what_is_signed(twin: TwinRepository, suite: Suite) -> None:
    def add_fields(root: Any) -> None:
        root.version += 1
        root.unrecognized_fields["custom"] = {"a": [1]}
        next(iter(root.keys.values())).unrecognized_fields["custom"] = "b"

    suite.init(twin.root)
    twin.forge("root", add_fields, signers=[twin.owner])
    assert suite.refresh() == 0
    assert suite.trusted()["root"] == 2


def test_it_runs_as_a_program(twin: TwinRepository, server: FaultyServer, suite: Suite) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "instar.testing.conformance", "--metadata-dir", str(suite.metadata)]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)

    root = suite.metadata.parent / "root"
    root.write_bytes(twin.root)
    assert run("init", str(root)).returncode == 0
    assert run("--metadata-url", f"{server.url}/metadata", "refresh").returncode == 0
    failed = run("--metadata-url", f"{server.url}/nowhere", "refresh")
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert failed.stderr
    assert run("refresh").returncode == 2
