"""Removing an installation: the app is whole until it is gone, and an interrupted removal is gone on with."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from instar.install.arrangement import InPlace, folder_inode
from instar.install.carry import carry_over
from instar.install.journal import Journal, Step
from instar.install.worker import Worker
from instar.model.keep import Keep
from instar.system import files

__all__ = ["remove_installation"]

# What says that there is an installation, and that it is being removed, goes last and in this order.
_LAST: Final = ("record.json", "journal.json", "lock")


def remove_installation(worker: Worker, keep: Keep, *, keep_user_files: bool) -> tuple[Path, ...]:
    """Remove the app and everything of ours, under the lock.

    Returns:
        The user's files that were left, where they are now.

    Raises:
        OSError: the disk refuses, or (Windows) the app runs; where nothing was removed yet, all is as before.

    """
    journal = worker.books.read_journal()
    if journal is None or journal.step is not Step.UNINSTALL:
        journal = _begin(worker, keep_user_files=keep_user_files)
    kept = worker.state_folder / "kept"
    if journal.source is not None and (tree := _standing(worker, journal)) is not None:
        try:
            if journal.keep_user_files and not kept.exists():
                partial = worker.make_scratch("kept")
                carry_over(keep, tree, partial, worker.make_scratch("carry"))
                worker.arrangement.platform.move(partial, kept)
            worker.arrangement.unselect(worker.make_scratch("trash") / "app")
        except OSError:
            if _standing(worker, journal) is not None:
                with contextlib.suppress(OSError):
                    worker.arrangement.platform.remove_tree(kept)
                    worker.books.remove_journal()
            raise
    left = _bring_back(worker, kept)
    _remove_rest(worker)
    return left


def _begin(worker: Worker, *, keep_user_files: bool) -> Journal:
    worker.recover()
    current = worker.state.current
    inodes = {}
    if current is not None:
        inodes[current.name] = folder_inode(worker.place(current, worker.state)) or 0
    name = current.name if current else None
    journal = Journal(Step.UNINSTALL, name, inodes=inodes, keep_user_files=keep_user_files)
    worker.books.write_journal(journal)
    return journal


def _standing(worker: Worker, journal: Journal) -> Path | None:
    """Give the app's tree if it still stands; by its number, for the user may have put something else there since."""
    if journal.source is None:
        return None
    tree = worker.arrangement.place(journal.source, selected=journal.source)
    return tree if folder_inode(tree) == journal.inodes.get(journal.source) else None


def _bring_back(worker: Worker, kept: Path) -> tuple[Path, ...]:
    """Move the user's files to where the user knows them, below the location."""
    if not kept.is_dir():
        return ()
    location = worker.location
    location.mkdir(exist_ok=True)
    left: list[Path] = []
    for child in sorted(kept.iterdir()):
        target = location / child.name
        number = 2
        while target.exists() or target.is_symlink():
            # Something of the user's has the same name already.
            target = location / f"{child.name}-{number}"
            number += 1
        worker.arrangement.platform.move(child, target)
        left += _files_in(target)
    kept.rmdir()
    return tuple(left)


def _files_in(path: Path) -> list[Path]:
    if path.is_symlink() or not path.is_dir():
        return [path]
    return sorted(entry for entry in path.rglob("*") if entry.is_symlink() or not entry.is_dir())


def _remove_rest(worker: Worker) -> None:
    remove = worker.arrangement.platform.remove_tree
    arrangement = worker.arrangement
    if not isinstance(arrangement, InPlace):
        arrangement.platform.unpoint(arrangement.entry)
    remove(arrangement.trees)
    for path in sorted(worker.state_folder.iterdir()):
        if path.name not in _LAST:
            remove(path)
    files.sync_folder(worker.state_folder)
    for name in _LAST[:-1]:
        remove(worker.state_folder / name)
    with contextlib.suppress(OSError):
        # Windows does not remove a lock file that is held: this one; nor a folder with something of the user's in it.
        remove(worker.books.lock_path)
        worker.state_folder.rmdir()
        if not isinstance(arrangement, InPlace):
            worker.location.rmdir()
    files.sync_folder(worker.location.parent)
