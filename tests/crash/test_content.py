"""Fetching and rebuilding, interrupted at every step: nothing that came is lost, and the next run ends well."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from instar.content.downloads import Downloads
from instar.content.rebuild import Source, make_tree
from instar.content.trees import verify_tree
from instar.storage import LocalStorage
from instar.system.files import remove_tree
from instar.testing import crash
from tests.support.releases_on_disk import Shelf, edited, some_bytes

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the child process is made by fork")

OLD = {"app*": some_bytes("app", 60_000), "lib/x": some_bytes("x", 30_000), "lib/same": b"same"}
NEW = OLD | {"app*": edited(OLD["app*"], (5, b"changed")), "lib/added": some_bytes("added", 20_000), "link": "app"}


@pytest.mark.parametrize("fault", [crash.KILL, crash.DISK_FULL, crash.READ_ONLY], ids=["killed", "full", "read-only"])
def test_interrupted_at_any_step_the_next_run_makes_the_tree(tmp_path: Path, fault: crash.Fault) -> None:
    shelf = Shelf(tmp_path / "shelf")
    shelf.add("1", OLD)
    new = shelf.add("2", NEW).manifest
    storage = LocalStorage(tmp_path / "storage")
    for listed in shelf.storage.list():
        storage.write(listed.key, shelf.storage.read(listed.key, limit=1 << 30))
    sources = [Source(shelf.tree("1"), shelf.manifests[0])]

    def update(folder: Path) -> None:
        make_tree(new, sources, Downloads(folder / "downloads"), folder / "made", reader=storage)

    def prepare(at: int) -> tuple[Path, Callable[[], object]]:
        folder = tmp_path / f"device-{at}"
        folder.mkdir()
        return folder, lambda: update(folder)

    steps = 0
    for _, folder, ended in crash.every_step(prepare, fault=fault):
        steps += 1
        assert ended.killed or ended.finished or "InstallFailed" in ended.families, ended.trace
        if ended.error:
            assert "failed" in ended.error
        remove_tree(folder / "made")
        update(folder)
        assert verify_tree(folder / "made", new) == []
        # What the update was made from is as it was.
        assert verify_tree(sources[0].root, sources[0].manifest) == []
    assert steps > 8
