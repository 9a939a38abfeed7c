"""Comparing a tree on disk with the manifest that describes it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from instar.content.downloads import never_cancelled
from instar.errors import Cancelled
from instar.model.manifest import File, Manifest
from instar.model.names import TreePath
from instar.model.progress import OnProgress, Phase, Progress, ignore_progress
from instar.system.files import iterate_blocks

__all__ = ["Difference", "Problem", "verify_tree"]

_THREADS: Final = 4  # hashing releases Python's lock; more than this many wait for the disk


class Difference(StrEnum):
    """How an entry differs. The values are shown to people."""

    MISSING = "missing"
    CHANGED = "changed"
    EXTRA = "not part of the release"


@dataclass(frozen=True, slots=True)
class Problem:
    """An entry of the tree that is not as signed. ``path`` is relative, with ``/``."""

    path: str
    difference: Difference


def verify_tree(
    root: Path,
    manifest: Manifest,
    *,
    keep: Callable[[str], bool] = lambda _: False,
    progress: OnProgress = ignore_progress,
    cancelled: Callable[[], bool] = never_cancelled,
) -> list[Problem]:
    """Hash a whole tree and list what differs from its manifest, sorted by path. Links are not followed.

    Args:
        root: the tree.
        manifest: what it should be.
        keep: says of a relative path that it is the user's own: then it is not reported as extra.
        progress: told of the bytes read.
        cancelled: asked between files.

    Raises:
        Cancelled: ``cancelled()`` became true.

    """
    files = {file.path: file for file in manifest.files}
    folders = {parent for path in (*files, *(link.path for link in manifest.links)) for parent in path.parents}
    folders |= {parent for path in manifest.directories for parent in path.parents}
    wanted: dict[str, tuple[int, str | None]] = {}
    wanted.update(dict.fromkeys(folders | set(manifest.directories), (stat.S_IFDIR, None)))
    wanted.update({link.path: (stat.S_IFLNK, link.target) for link in manifest.links})
    wanted.update(dict.fromkeys(files, (stat.S_IFREG, None)))
    problems: list[Problem] = []
    present: list[File] = []
    seen: set[str] = set()
    for path, mode in _walk(root, files):
        seen.add(path)
        kind, target = wanted.get(path, (None, None))
        if kind is None:
            if not keep(path) and not stat.S_ISDIR(mode):
                problems.append(Problem(path, Difference.EXTRA))
        elif kind != stat.S_IFMT(mode) or (target is not None and _target(root, path) != target):
            problems.append(Problem(path, Difference.CHANGED))
        elif path in files:
            present.append(files[TreePath(path)])
    problems += [Problem(path, Difference.MISSING) for path in wanted if path not in seen]
    judge = _Judge(root, manifest.size, progress, cancelled)
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), thread_name_prefix="instar-verify") as pool:
        same = list(pool.map(judge.is_same, present))
    problems += [Problem(file.path, Difference.CHANGED) for file, good in zip(present, same, strict=True) if not good]
    return sorted(problems, key=lambda problem: problem.path)


def _walk(root: Path, expected: Collection[str]) -> Iterator[tuple[str, int]]:
    """Give every entry below ``root`` with its mode. What cannot be looked into counts as empty."""
    pending = [""]
    while pending:
        folder = pending.pop()
        with contextlib.suppress(OSError), os.scandir(root.joinpath(folder)) as entries:
            for entry in entries:
                path = f"{folder}/{entry.name}" if folder else entry.name
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode) and path not in expected:
                    pending.append(path)
                yield path, mode


def _target(root: Path, path: str) -> str | None:
    try:
        return root.joinpath(path).readlink().as_posix()
    except OSError:
        return None


class _Judge:
    """Hashes files, for all threads of one verification."""

    def __init__(self, root: Path, total: int, progress: OnProgress, cancelled: Callable[[], bool]) -> None:
        self._root = root
        self._total = total
        self._progress = progress
        self._cancelled = cancelled
        self._done = 0
        self._lock = threading.Lock()

    def is_same(self, file: File) -> bool:
        """Tell whether a file has the size, content and executable bit that it should have."""
        if self._cancelled():
            msg = "The verification was cancelled."
            raise Cancelled(msg)
        try:
            same = self._has_content(file)
        except OSError:
            same = False
        with self._lock:
            self._done += file.size
            self._progress(Progress(Phase.VERIFY, self._done, self._total))
        return same

    def _has_content(self, file: File) -> bool:
        digest = hashlib.sha256()
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(self._root.joinpath(file.path), flags), "rb", buffering=0) as content:
            status = os.fstat(content.fileno())
            # Windows keeps no executable bit.
            executable = file.executable if sys.platform == "win32" else bool(status.st_mode & stat.S_IXUSR)
            if status.st_size != file.size or executable != file.executable:
                return False
            for block in iterate_blocks(content):
                digest.update(block)
        return digest.digest() == file.digest.raw
