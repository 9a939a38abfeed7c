"""Replacing many files of a folder as if they were one: after a crash either none is replaced, or all will be.

What is to come is written beside them first, whole and durable, and then moved into place, one file after the other.
Whoever looks in between sees old and new files, each of them whole. One at a time: locking is the caller's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from instar.system.files import (
    create_file,
    read_bounded,
    remove_tree,
    sync_folder,
    sync_folders,
    sync_tree,
    write_atomic,
)

__all__ = ["finish_replacing", "replace_files"]

_STAGED: Final = ".instar-staged"
_LIST: Final = "list.json"
_MAX_LIST: Final = 1 << 30  # bytes: some million paths; written by ourselves


def replace_files(folder: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Replace or create files below ``folder``, and make that durable.

    Args:
        folder: it exists, and nothing that was begun there is unfinished (:func:`finish_replacing`).
        files: paths relative to ``folder``, separated by ``/`` and without ``..``, and their content.

    Raises:
        OSError: something could not be written. Before the first file was moved nothing is changed; after it,
            :func:`finish_replacing` goes on where this stopped.

    """
    staged = folder / _STAGED
    remove_tree(staged)
    names: list[str] = []
    try:
        for number, (name, data) in enumerate(files):
            if not names:
                staged.mkdir()
            with create_file(staged / str(number)) as file:
                file.write(data)
            names.append(name)
        if not names:
            return
        # All at once: a journaling file system commits them together.
        sync_tree(staged)
        sync_folder(folder)
        write_atomic(staged / _LIST, json.dumps(names).encode())
    except BaseException:
        remove_tree(staged)
        raise
    finish_replacing(folder)


def finish_replacing(folder: Path) -> bool:
    """Move into place what an earlier replacement wrote before it was interrupted, or remove what is not whole.

    Returns:
        Whether there was something to finish.

    Raises:
        OSError: something could not be moved. It can be tried again.
        ValueError: the list of what to move is not one of ours.

    """
    staged = folder / _STAGED
    try:
        names = json.loads(read_bounded(staged / _LIST, _MAX_LIST))
    except FileNotFoundError:
        remove_tree(staged)
        return False
    touched: set[Path] = set()
    for number, name in enumerate(names):
        source, target = staged / str(number), folder / name
        if not source.exists():
            continue  # moved before the interruption
        if target.parent not in touched:
            target.parent.mkdir(parents=True, exist_ok=True)
            touched.update(_up_to(folder, target.parent))
        # Made durable below, once for each folder instead of once for each file.
        os.replace(source, target)  # noqa: PTH105  # ten thousands of times
    sync_folders(folder, sorted(touched))
    # Without its list the rest is leftovers; with it, a crash in between would only move nothing again.
    (staged / _LIST).unlink()
    remove_tree(staged)
    sync_folder(folder)
    return True


def _up_to(folder: Path, inner: Path) -> Iterator[Path]:
    """Give ``inner`` and what is above it, up to ``folder``: each may have got a new name."""
    while inner != folder:
        yield inner
        inner = inner.parent
    yield folder
