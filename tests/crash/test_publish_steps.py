"""Publishing, interrupted at every step: strangers see the old repository or the new one, and the next run succeeds."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from instar.errors import Misconfigured
from instar.model.names import Name, ProductName
from instar.model.version import Version
from instar.publish import (
    Settings,
    found_project,
    list_releases,
    open_project,
    promote,
    prune,
    refresh,
    rotate,
    verify_repository,
)
from instar.testing import crash
from instar.trust.roles import Authority
from tests.support.projects import bundle, days, new_project, publish, this_moment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the child process is made by fork")

FAULTS = pytest.mark.parametrize(
    "fault", [crash.KILL, crash.DISK_FULL, crash.READ_ONLY], ids=["killed", "full", "read-only"]
)


@dataclass
class Original:
    """A project with two releases, to be copied for each attempt."""

    folder: Path

    def copy(self, folder: Path) -> Path:
        shutil.copytree(self.folder, folder)
        return folder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    folder = tmp_path_factory.mktemp("original") / "project"
    project = new_project(folder)
    publish(project, "1.0", channel="beta")
    publish(project, "1.1", channel="beta")
    return Original(folder)


def versions(folder: Path) -> list[str]:
    return [str(row.version) for row in list_releases(open_project(folder)).releases]


def all_packs_are_named(folder: Path) -> bool:
    project = open_project(folder)
    before = {listed.key for listed in project.storage.list("packs/")}
    now = this_moment()
    now.advance(days(3))
    prune(open_project(folder, clock=now))
    return {listed.key for listed in project.storage.list("packs/")} == before


@FAULTS
def test_a_release_interrupted_anywhere(original: Original, tmp_path: Path, fault: crash.Fault) -> None:
    tree = bundle(tmp_path / "tree", "1.2")

    def prepare(at: int) -> tuple[Path, Callable[[], object]]:
        folder = original.copy(tmp_path / str(at))
        return folder, lambda: publish(open_project(folder), "1.2", tree, channel="beta")

    steps = 0
    for _, folder, ended in crash.every_step(prepare, fault=fault):
        steps += 1
        assert ended.killed or ended.finished or "InstarError" in ended.families, ended.trace
        assert verify_repository(open_project(folder)).problems == []
        if "1.2" not in versions(folder):
            assert not ended.finished
            publish(open_project(folder), "1.2", tree, channel="beta")
        assert versions(folder) == ["1.2", "1.1", "1.0"]
        # The next run, whatever it is, leaves nothing behind that nobody needs.
        promote(open_project(folder), Version("1.2"), Name("stable"))
        assert not list(open_project(folder).storage.list("publishing/"))
        assert not (folder / ".instar-work").exists()
        assert all_packs_are_named(folder)
        assert verify_repository(open_project(folder)).problems == []
        shutil.rmtree(folder)  # noqa: TID251  # the test's own, many times
    assert steps > 10


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: promote(open_project(folder), Version("1.1"), Name("stable")),
        lambda folder: refresh(open_project(folder), everything=True),
        lambda folder: prune(open_project(folder), keep=1, grace=days(0)),
    ],
    ids=["promote", "refresh", "prune"],
)
@pytest.mark.parametrize("fault", [crash.KILL, crash.DISK_FULL], ids=["killed", "full"])
def test_other_changes_interrupted_anywhere(
    original: Original, tmp_path: Path, change: Callable[[Path], object], fault: crash.Fault
) -> None:
    def prepare(at: int) -> tuple[Path, Callable[[], object]]:
        folder = original.copy(tmp_path / str(at))
        return folder, lambda: change(folder)

    for _, folder, ended in crash.every_step(prepare, fault=fault):
        assert ended.killed or ended.finished or "InstarError" in ended.families, ended.trace
        assert verify_repository(open_project(folder)).problems == []
        # Doing it again ends it, or says that it was done.
        with contextlib.suppress(Misconfigured):  # "already"
            change(folder)
        assert verify_repository(open_project(folder)).problems == []
        publish(open_project(folder), "1.2", channel="beta")
        assert versions(folder)[:2] == ["1.2", "1.1"]
        shutil.rmtree(folder)  # noqa: TID251  # the test's own, many times


@pytest.mark.parametrize("authority", Authority)
@pytest.mark.parametrize("fault", [crash.KILL, crash.DISK_FULL], ids=["killed", "full"])
def test_a_rotation_interrupted_anywhere_ends_without_the_old_key(
    original: Original, tmp_path: Path, authority: Authority, fault: crash.Fault
) -> None:
    old = open_project(original.folder).roles().keys(authority)[0].keyid

    def prepare(at: int) -> tuple[Path, Callable[[], object]]:
        folder = original.copy(tmp_path / str(at))
        return folder, lambda: rotate(open_project(folder), authority, passphrase=None)

    for _, folder, ended in crash.every_step(prepare, fault=fault):
        assert ended.killed or ended.finished or "InstarError" in ended.families, ended.trace
        assert verify_repository(open_project(folder)).problems == []
        rotate(open_project(folder), authority, passphrase=None)
        published = open_project(folder).roles().published
        for role in ("root", "targets"):
            text = (folder / "repository" / "metadata" / f"{published[role]}.{role}.json").read_text()
            # The old key has signed its own end; it is trusted for nothing any more.
            assert old not in json.dumps(json.loads(text)["signed"])
        assert verify_repository(open_project(folder)).problems == []
        publish(open_project(folder), "1.2", channel="beta")
        shutil.rmtree(folder)  # noqa: TID251  # the test's own, many times


@FAULTS
def test_init_interrupted_anywhere_works_when_it_is_run_again(tmp_path: Path, fault: crash.Fault) -> None:
    def init(folder: Path) -> None:
        found_project(folder / "project", Settings(ProductName("app")), secret=None)

    def prepare(at: int) -> tuple[Path, Callable[[], object]]:
        folder = tmp_path / str(at)
        folder.mkdir()
        return folder, lambda: init(folder)

    for _, folder, ended in crash.every_step(prepare, fault=fault):
        assert ended.killed or ended.finished or "InstarError" in ended.families, ended.trace
        if not (folder / "project" / "instar.toml").exists():
            init(folder)
        assert verify_repository(open_project(folder / "project")).problems == []
        assert sorted(path.name for path in (folder / "project" / "keys").iterdir()) == ["online.pem", "owner.pem"]
