"""Putting single entries of the running tree right, each in one step. Which are wrong, others know."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from instar.install.appdir.port import Platform
from instar.model.keep import Keep
from instar.model.names import TreePath, check_link_target
from instar.system import files

__all__ = ["make_tree_folder", "put_file", "put_link", "remove_entry"]


def put_file(tree: Path, path: TreePath, source: Path, *, executable: bool, platform: Platform) -> None:
    """Move the file ``source`` to ``path``. A reader sees the old content or all of the new."""
    source.chmod(0o755 if executable else 0o644)
    descriptor = os.open(source, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    platform.move(source, _make_room(tree, path, platform))


def put_link(tree: Path, path: TreePath, target: str, *, scratch: Path, platform: Platform) -> None:
    """Make ``path`` a symbolic link to ``target``, which stays inside the tree.

    Raises:
        ValueError: it does not.

    """
    check_link_target(path, target)
    fresh = scratch / "link"
    fresh.symlink_to(target)
    platform.move(fresh, _make_room(tree, path, platform))


def make_tree_folder(tree: Path, path: TreePath, *, platform: Platform) -> None:
    """Make ``path`` a folder; whatever else is in its place gives way."""
    _folder(tree, path, platform)


def remove_entry(tree: Path, path: str, *, keep: Keep, platform: Platform) -> bool:
    """Remove ``path`` with all that is in it; say whether it was removed. What ``keep`` names is left alone.

    It need not be a name that a release could have. Nothing is removed below a link, which may lead anywhere.

    Raises:
        ValueError: it leaves the tree.

    """
    segments = path.split("/")
    if not {"", ".", ".."}.isdisjoint(segments):
        msg = f"{path[:200]!r} is not inside the tree"
        raise ValueError(msg)
    if keep.matches(path):
        return False
    entry = tree
    for segment in segments[:-1]:
        entry /= segment
        if entry.is_symlink() or not entry.is_dir():
            return False
    entry /= segments[-1]
    if not entry.exists() and not entry.is_symlink():
        return False
    if entry.is_dir() and not entry.is_symlink() and keep:
        for below in sorted(child.name for child in entry.iterdir()):
            remove_entry(tree, f"{path}/{below}", keep=keep, platform=platform)
        if any(entry.iterdir()):
            return False
    platform.remove_tree(entry)
    files.sync_folder(entry.parent)
    return True


def _make_room(tree: Path, path: TreePath, platform: Platform) -> Path:
    """Give the place of a file whose folders exist and which is no folder itself."""
    parents = path.parents
    if parents:
        _folder(tree, TreePath(parents[-1]), platform)
    place = tree / path
    if place.is_dir() and not place.is_symlink():
        platform.remove_tree(place)
    return place


def _folder(tree: Path, path: TreePath, platform: Platform) -> None:
    if tree.is_symlink() or not tree.is_dir():
        raise FileNotFoundError(errno.ENOENT, "the app's tree is gone", str(tree))
    for segment in (*path.parents, path):
        folder = tree / segment
        # A link here would lead what follows out of the tree.
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            platform.remove_tree(folder)
        if not folder.exists():
            folder.mkdir()
            files.sync_folder(folder.parent)
