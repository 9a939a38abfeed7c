"""Hostile manifests and packs, really signed by the owner's key: what an attacker can do who stole even that.

Nothing is written outside the folder, nothing is swallowed without bound, and the old version runs on.
"""

from __future__ import annotations

import json
import stat
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import instar
from instar.content._zstd import zstd
from instar.content.manifests import compress_manifest
from instar.errors import Untrusted
from instar.model.digest import Digest
from instar.model.manifest import MAX_JSON, piece_key
from instar.policy.select import Reason
from instar.testing.releases import Bundle, Releases, read_bundle
from instar.testing.repository import TwinRepository
from instar.trust.layout import manifest_path

ONE = Bundle({"app": b"#!/bin/sh\necho 1\n", "data": b"1" * 40_000}, executable={"app"})
TWO = Bundle({"app": b"#!/bin/sh\necho 2\n", "data": b"2" * 40_000, "x/y": b"y"}, executable={"app"})
# Decompressed, far more than a test machine should notice.
BOMB = 100 << 20


class Victim:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.releases = Releases(TwinRepository())
        self.storage = self.releases.repository.storage
        self.releases.release("1.0", ONE)
        self.config = instar.Config("app", "https://x.example/", self.releases.repository.root, folder / "app")
        instar.first_install(self.config, reader=self.storage)
        self.outside = sorted(folder.iterdir())

    def document(self) -> dict[str, Any]:
        """Give the JSON of a decent release 1.1, to be spoiled."""
        found: dict[str, Any] = json.loads(self.releases.release("1.1", TWO).to_json())
        return found

    def publish(self, document: dict[str, Any]) -> None:
        self.releases.publish_manifest("1.1", json.dumps(document).encode())

    def update(self) -> None:
        updater = instar.Updater(self.config, reader=self.storage)
        update = updater.check()
        assert update is not None
        updater.download(update).install()

    def is_unharmed(self) -> None:
        assert read_bundle(self.config.location / "current") == ONE
        assert sorted(self.folder.iterdir()) == self.outside
        assert not instar.startup(self.config).restart_needed


@pytest.fixture
def victim(tmp_path: Path) -> Victim:
    return Victim(tmp_path)


def named(path: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["files"][0]["path"] = path

    return change


def linked(path: str, target: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["links"] = [[path, target]]

    return change


def with_twin(path: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["files"].append({**document["files"][0], "path": path})

    return change


HOSTILE: dict[str, Callable[[dict[str, Any]], None]] = {
    "path escape": named("../../outside"),
    "path escape in the middle": named("lib/../../outside"),
    "absolute path": named("/etc/passwd"),
    "drive letter path with backslashes": named("C:\\Windows\\evil"),
    "path into our own state": named("../.instar/state.json"),
    "NUL in a path": named("app\0.txt"),
    "control character in a path": named("app\nname"),
    "empty path": named(""),
    "device name": named("aux.txt"),
    "path longer than disks take": named("x" * 300),
    "path that is no text": lambda d: d["files"][0].__setitem__("path", 5),
    "link out": linked("way", "../../outside"),
    "absolute link": linked("way", "/etc"),
    "link out behind a name": linked("way", "x/../../.."),
    "link that a file goes through": linked("x", "lib"),
    "link in the place of a file": linked("app", "data"),
    "the same name twice": with_twin("app"),
    "names that differ in case": with_twin("APP"),
    "names that differ in their accents' encoding": lambda d: [with_twin(n)(d) for n in ("é", "é")],  # type: ignore[func-returns-value]
    "file that is a folder too": with_twin("app/inner"),
    "size that its chunks do not have": lambda d: d["files"][0].__setitem__("size", 10**15),
    "negative size": lambda d: d["files"][0].__setitem__("size", -1),
    "chunk that does not exist": lambda d: d["files"][0].__setitem__("chunks", [[10**6, 1]]),
    "run of chunks without end": lambda d: d["files"][0].__setitem__("chunks", [[0, 10**12]]),
    "chunk beyond its frame": lambda d: d["chunks"][0].__setitem__(1, 1 << 23),
    "frame beyond its pack": lambda d: d["frames"][0].__setitem__(3, 1 << 60),
    "frame of a terabyte": lambda d: d["frames"][0].__setitem__(4, 1 << 40),
    "pack with an impossible digest": lambda d: d["packs"][0].__setitem__(0, "../../x"),
    "another product": lambda d: d.__setitem__("product", "other"),
    "another version": lambda d: d.__setitem__("version", "9.9"),
    "another platform": lambda d: d.__setitem__("platform", "other"),
    "another format": lambda d: d.__setitem__("format", "instar-manifest-9"),
    "nesting without end": lambda d: d.__setitem__("meta", {"x": [[]]}),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_manifest_that_means_harm_is_refused(victim: Victim, attack: str) -> None:
    document = victim.document()
    HOSTILE[attack](document)
    victim.publish(document)
    with pytest.raises(Untrusted):
        victim.update()
    victim.is_unharmed()


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b'{"format": "instar-manifest-1"}', b"[" * 100_000, b"\xff"]
)
def test_a_manifest_that_is_none_is_refused(victim: Victim, text: bytes) -> None:
    victim.document()
    victim.releases.publish_manifest("1.1", text)
    with pytest.raises(Untrusted):
        victim.update()
    victim.is_unharmed()


def test_a_manifest_bomb_does_not_unfold(victim: Victim) -> None:
    """A few kilobytes that become hundreds of megabytes, with a small size signed for them."""
    victim.document()
    bomb = zstd.compress(bytes(BOMB), level=1)
    custom = {"json": {"sha256": Digest.of(b"x").hex, "size": 1000}}
    victim.releases.repository.put(manifest_path("app", victim.releases.platform, "1.1"), bomb, custom)
    tracemalloc.start()
    try:
        with pytest.raises(Untrusted):
            victim.update()
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()
    victim.is_unharmed()


@pytest.mark.parametrize(
    "custom",
    [
        {},
        {"json": None},
        {"json": {"sha256": "no", "size": 5}},
        {"json": {"sha256": "0" * 64, "size": -5}},
        {"json": {"sha256": "0" * 64, "size": True}},
        {"json": {"sha256": "0" * 64, "size": MAX_JSON + 1}},
        {"json": {"sha256": "0" * 64}},
    ],
    ids=str,
)
def test_what_is_signed_about_a_manifest_must_make_sense(victim: Victim, custom: dict[str, Any]) -> None:
    victim.document()
    document = victim.releases.manifests["1.1"].to_json()
    path = manifest_path("app", victim.releases.platform, "1.1")
    victim.releases.repository.put(path, compress_manifest(document), custom)
    with pytest.raises(Untrusted):
        victim.update()
    victim.is_unharmed()


@pytest.mark.parametrize(
    "deltas", [None, 5, [5], [{}], [{"from": "x"}], [{"sha256": "x", "size": 1, "from": "y"}]], ids=str
)
def test_senseless_differences_are_passed_over(victim: Victim, deltas: object) -> None:
    victim.document()
    document = victim.releases.manifests["1.1"].to_json()
    custom = {"json": {"sha256": Digest.of(document).hex, "size": len(document)}, "deltas": deltas}
    path = manifest_path("app", victim.releases.platform, "1.1")
    victim.releases.repository.put(path, compress_manifest(document), custom)
    victim.update()
    assert read_bundle(victim.config.location / "current") == TWO


def test_a_frame_that_holds_more_than_was_signed_is_refused(victim: Victim) -> None:
    document = victim.document()
    bomb = zstd.compress(bytes(BOMB), level=1)
    digest = Digest.of(bomb)
    victim.storage.write(piece_key(digest, "pack"), bomb)
    document["packs"].append([digest.hex, len(bomb)])
    number = document["chunks"][0][2]
    size = document["frames"][number][4]
    document["frames"][number] = [digest.hex, len(document["packs"]) - 1, 0, len(bomb), size]
    victim.publish(document)
    tracemalloc.start()
    try:
        with pytest.raises(Untrusted):
            victim.update()
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()
    victim.is_unharmed()


def test_a_frame_that_holds_something_else_is_refused(victim: Victim) -> None:
    document = victim.document()
    number = document["chunks"][0][2]
    size = document["frames"][number][4]
    frame = compress_manifest(b"?" * size)
    digest = Digest.of(frame)
    victim.storage.write(piece_key(digest, "pack"), frame)
    document["packs"].append([digest.hex, len(frame)])
    document["frames"][number] = [digest.hex, len(document["packs"]) - 1, 0, len(frame), size]
    victim.publish(document)
    with pytest.raises(Untrusted):
        victim.update()
    victim.is_unharmed()


def test_a_file_whose_digest_its_chunks_do_not_make_is_refused(victim: Victim) -> None:
    document = victim.document()
    document["files"][0]["sha256"] = "0" * 64
    victim.publish(document)
    with pytest.raises(Untrusted):
        victim.update()
    victim.is_unharmed()


def test_a_patch_that_makes_something_else_is_refused(victim: Victim) -> None:
    victim.releases.release("1.1", TWO, patched_from="1.0")
    document = json.loads(victim.releases.manifests["1.1"].to_json())
    patched = [file for file in document["files"] if "patches" in file]
    assert patched
    for file in patched:
        file["sha256"] = Digest.of(file["path"].encode()).hex
    victim.publish(document)
    with pytest.raises(Untrusted):
        victim.update()
    victim.is_unharmed()


def test_nothing_that_was_built_can_be_written_by_others_or_change_who_runs_it(victim: Victim) -> None:
    victim.document()
    victim.update()
    for path in (victim.config.location / "current").resolve().rglob("*"):
        mode = path.lstat().st_mode
        assert stat.S_ISREG(mode) or stat.S_ISDIR(mode)
        assert mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWOTH) == 0


def test_a_link_that_was_put_into_the_tree_by_hand_is_not_followed(victim: Victim, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(ONE.files["data"])
    victim.outside = sorted([*victim.outside, secret])
    data = victim.config.location / "current/data"
    data.unlink()
    data.symlink_to(secret)
    instar.repair(victim.config, reader=victim.storage)
    victim.is_unharmed()
    assert secret.read_bytes() == ONE.files["data"]
    # And as the base of a patch: another file's content, however like it may be, is not what is patched.
    data.unlink()
    data.symlink_to(secret)
    victim.releases.release("1.1", TWO, patched_from="1.0")
    victim.update()
    assert read_bundle(victim.config.location / "current") == TWO


def test_a_release_that_failed_here_is_not_installed_under_another_number(victim: Victim) -> None:
    victim.releases.release("1.1", TWO)
    victim.update()
    instar.rollback(victim.config)
    victim.releases.release("1.2", TWO)
    found = instar.Updater(victim.config, reader=victim.storage).look()
    assert (found.update, found.reason) == (None, Reason.FAILED_HERE)
    victim.is_unharmed()


def test_the_floor_stands_above_a_first_install_too(tmp_path: Path) -> None:
    releases = Releases(TwinRepository())
    releases.release("1.0", ONE)
    with releases.repository.edit() as roles:
        roles.set_floor("app", "1.1")
    config = instar.Config("app", "https://x.example/", releases.repository.root, tmp_path / "app")
    with pytest.raises(instar.Misconfigured, match="security floor"):
        instar.first_install(config, reader=releases.repository.storage)
    assert not (tmp_path / "app/current").exists()
    releases.release("1.1", TWO)
    instar.first_install(replace(config), reader=releases.repository.storage)
    assert read_bundle(tmp_path / "app/current") == TWO
