"""A bundle's folder, as values: what is in it, hashed. Publisher's half."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from instar.model.digest import Digest
from instar.model.manifest import Link
from instar.model.names import Name, TreePath
from instar.model.progress import OnProgress, ignore_progress

__all__ = ["ScannedFile", "Tree", "scan_folder"]


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """A regular file: ``size`` bytes with the digest ``digest`` when it was read."""

    path: TreePath
    size: int
    digest: Digest
    executable: bool


@dataclass(frozen=True, slots=True)
class Tree:
    """What a folder holds, each sorted by path. ``directories`` are the empty ones."""

    root: Path
    files: tuple[ScannedFile, ...]
    links: tuple[Link, ...]
    directories: tuple[TreePath, ...]


def scan_folder(root: Path, *, platform: Name, progress: OnProgress = ignore_progress) -> Tree:
    """Read a folder, hashing its files in threads.

    Raises:
        Misconfigured: the folder is missing, empty or unreadable, or holds what no release can: devices, sockets,
            absolute links or links that leave it, names that some disk could not take or would confuse. Every problem
            is named, up to ten.

    """
    raise NotImplementedError
