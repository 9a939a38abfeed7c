"""Writing a static tree, interrupted at every step: each file is old or new, and the next run completes the tree."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from instar.compat.atomupd.settings import ServerSettings
from instar.compat.atomupd.tree import generate
from instar.testing import crash
from tests.support.atomupd_pools import add_image, make_pool, write_settings

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the child process is made by fork")

LINES = ["3.6 20240104.1 stable", "3.7 20240115.1 stable", "3.8 20240116.1 beta"]


def settings_for(folder: Path) -> ServerSettings:
    return ServerSettings.read(write_settings(folder / "server.conf", folder / "pool", branches="stable beta"))


def write(folder: Path) -> None:
    generate(settings_for(folder), folder / "tree", size_of=lambda _old, _new: 0)


def files(folder: Path) -> dict[str, bytes]:
    tree = folder / "tree"
    visible = (path for path in tree.rglob("*") if path.is_file() and ".instar-staged" not in path.parts)
    return {str(path.relative_to(tree)): path.read_bytes() for path in visible}


@pytest.mark.parametrize("fault", [crash.KILL, crash.DISK_FULL, crash.READ_ONLY], ids=["killed", "full", "read-only"])
def test_the_tree_is_whole_after_each_interruption(fault: crash.Fault, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    make_pool(before / "pool", LINES)
    write(before)
    old = files(before)
    shutil.copytree(before, after)
    add_image(after / "pool", "3.9 20240117.1 stable i1")
    write(after)
    new = files(after)
    changed = {path for path in new if old.get(path) != new[path]}
    assert len(changed) >= 5

    def prepare(at: int) -> tuple[Path, Callable[[], object]]:
        folder = tmp_path / str(at)
        shutil.copytree(before, folder)
        add_image(folder / "pool", "3.9 20240117.1 stable i1")
        write_settings(folder / "server.conf", folder / "pool", branches="stable beta")
        settings = settings_for(folder)
        return folder / "tree", lambda: generate(settings, folder / "tree", size_of=lambda _old, _new: 0)

    reached = 0
    for _, tree, ended in crash.every_step(prepare, fault=fault):
        reached += 1
        found = files(tree.parent)
        assert all(content in {old.get(path), new[path]} for path, content in found.items())
        assert old.keys() <= found.keys()
        if ended.error:
            assert "Unavailable" in ended.families or ended.error.startswith("Unavailable"), ended
            # Refused before the first file was moved: nothing was changed, and nothing was left.
        write(tree.parent)
        assert files(tree.parent) == new
        assert not (tree / ".instar-staged").exists()
    assert reached > len(changed)
