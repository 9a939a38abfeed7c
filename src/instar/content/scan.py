"""A bundle's folder, as values: what is in it, hashed. Publisher's half."""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from instar.errors import Misconfigured
from instar.model.digest import Digest
from instar.model.manifest import File, Link, Manifest
from instar.model.names import Name, ProductName, TreePath
from instar.model.progress import OnProgress, Phase, Progress, ignore_progress
from instar.model.version import Version
from instar.system.files import iterate_blocks

__all__ = ["ScannedFile", "Tree", "scan_folder"]

_TOLD: Final = 10  # problems named in one message
_THREADS: Final = 4  # hashing releases Python's lock; more than this many wait for the disk


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
    scan = _Scan(root)
    if not root.is_dir():
        msg = f"There is no folder {root}."
        raise Misconfigured(msg, hint="Name the folder that holds the bundled app.")
    scan.walk("")
    if not scan.problems and not scan.files:
        msg = f"The folder {root} holds no files."
        raise Misconfigured(msg, hint="Name the folder that holds the bundled app.")
    _refuse(root, scan.problems)
    total = sum(size for _, size, _ in scan.files)
    done = 0
    hashed: list[ScannedFile] = []
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), thread_name_prefix="instar-scan") as pool:
        for file, problem in pool.map(scan.hash_file, sorted(scan.files)):
            if problem or file is None:
                scan.problems.append(problem)
                continue
            hashed.append(file)
            done += file.size
            progress(Progress(Phase.SCAN, done, total))
    _refuse(root, scan.problems)
    tree = Tree(root, tuple(hashed), tuple(sorted(scan.links, key=lambda link: link.path)), tuple(sorted(scan.empty)))
    _refuse(root, _problems_of_names(tree, platform))
    return tree


def _problems_of_names(tree: Tree, platform: Name) -> list[str]:
    """Ask the manifest, who knows what can live together on a disk."""
    try:
        Manifest(
            product=ProductName("scan"),
            version=Version("0"),
            platform=platform,
            # Without content: only the names are asked about, and pieces do not exist yet.
            files=tuple(File(file.path, 0, file.digest, file.executable, ()) for file in tree.files),
            links=tree.links,
            directories=tree.directories,
        )
    except ValueError as error:
        return [str(error)]
    return []


def _refuse(root: Path, problems: list[str]) -> None:
    if problems:
        more = f" (and {len(problems) - _TOLD} more)" if len(problems) > _TOLD else ""
        msg = f"{root} cannot become a release: {'; '.join(sorted(problems)[:_TOLD])}{more}."
        raise Misconfigured(msg, hint="Nothing was published.")


class _Scan:
    """What was found so far, and what is wrong with it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.files: list[tuple[TreePath, int, bool]] = []
        self.links: list[Link] = []
        self.empty: list[TreePath] = []
        self.problems: list[str] = []

    def walk(self, folder: str) -> None:
        """Note everything in a folder, and in the folders in it."""
        try:
            with os.scandir(self._root.joinpath(folder)) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
            if folder and not found:
                self.empty.append(TreePath(folder))
            for entry in found:
                self._note(f"{folder}/{entry.name}" if folder else entry.name, entry)
        except OSError as error:
            self.problems.append(f"{folder or self._root}: {error.strerror or error}")

    def _note(self, path: str, entry: os.DirEntry[str]) -> None:
        try:
            name = TreePath(path)
        except ValueError as error:
            self.problems.append(str(error))
            return
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            # Judged with the other names, when all are known.
            self.links.append(Link(name, Path(entry.path).readlink().as_posix()))
        elif stat.S_ISDIR(status.st_mode):
            self.walk(path)
        elif stat.S_ISREG(status.st_mode):
            self.files.append((name, status.st_size, bool(status.st_mode & stat.S_IXUSR)))
        else:
            self.problems.append(f"{path} is neither a file, a folder nor a link")

    def hash_file(self, found: tuple[TreePath, int, bool]) -> tuple[ScannedFile | None, str]:
        """Hash a file; gives it, or what is wrong."""
        path, size, executable = found
        digest = hashlib.sha256()
        read = 0
        try:
            with self._root.joinpath(path).open("rb", buffering=0) as file:
                for block in iterate_blocks(file):
                    digest.update(block)
                    read += len(block)
        except OSError as error:
            return None, f"{path}: {error.strerror or error}"
        if read != size:
            return None, f"{path} changed while it was read"
        return ScannedFile(path, size, Digest(digest.digest()), executable), ""
