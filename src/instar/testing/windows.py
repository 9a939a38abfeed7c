"""A model of the rules by which Windows treats files, on the folders of any other system.

The part of instar that was written for Windows runs on it unchanged, in the tests. It knows what hurts there: a folder
in which something is open cannot be renamed, nor an open file be replaced or removed; nothing exchanges two folders; a
junction is removed and made again, never replaced. It cannot know what nobody thought of: Windows itself has the word.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from instar.install.appdir.windows import WindowsApi
from instar.system import files
from instar.system.locks import exclusive

__all__ = ["WindowsModel"]


class WindowsModel(WindowsApi):
    """The calls of Windows. Junctions are kept as symbolic links to absolute folders.

    Attributes:
        started: the command lines of the programs that were started detached.
        running: the ids of the processes that live.

    """

    def __init__(self) -> None:
        self.started: list[tuple[str, ...]] = []
        self.running: set[int] = set()
        self._open: list[Path] = []

    @contextlib.contextmanager
    def opened(self, path: Path) -> Iterator[None]:
        """Hold a file open, or a folder as a process does whose working folder it is; through junctions, too."""
        real = path.resolve(strict=True)
        self._open.append(real)
        try:
            yield
        finally:
            self._open.remove(real)

    def create_junction(self, target: Path, link: Path) -> None:
        """Make a junction."""
        if not target.is_absolute():
            raise OSError(errno.EINVAL, "a junction leads to an absolute path", str(target))
        if link.is_symlink() or link.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(link))
        link.symlink_to(target, target_is_directory=True)

    def read_junction(self, link: Path) -> Path | None:
        """Give where a junction leads."""
        return link.readlink() if link.is_symlink() else None

    def remove_junction(self, link: Path) -> None:
        """Remove a junction, whatever is open behind it."""
        if not link.is_symlink():
            raise OSError(errno.ENOTEMPTY, "not a junction", str(link))
        link.unlink()

    def rename(self, source: Path, target: Path) -> None:
        """Rename, unless something is open in the source, or a folder or an open file is at the target."""
        if not source.is_symlink() and self._is_open(source):
            raise _refused(source)
        if target.is_symlink() or target.is_dir() or (target.exists() and self._is_open(target)):
            raise _refused(target)
        source.rename(target)

    def remove_tree(self, path: Path) -> None:
        """Remove what is not open; when something was, fail after that, as removing one after the other does."""
        if path.is_symlink() or not path.is_dir():
            if self._is_open(path):
                raise _refused(path)
            files.remove_tree(path)
            return
        for child in sorted(path.iterdir()):
            self.remove_tree(child)
        if self._is_open(path):
            raise _refused(path)
        path.rmdir()

    def start_detached(self, argv: Sequence[str], folder: Path) -> None:
        """Remember what was started."""
        if not folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
        self.started.append(tuple(argv))

    def is_running(self, process: int) -> bool:
        """Say whether the process lives."""
        return process in self.running

    def run_helper(self) -> None:
        """Do what the helper script started last does once the app has exited, reading it from the script itself."""
        script = Path(self.started[-1][-1]).read_bytes().decode("utf-8-sig")
        journal = Path(_assigned(script, r"\$journal = "))
        lock = Path(_assigned(script, r"\$lock = \[IO\.File\]::Open\("))
        done: list[tuple[Path, Path]] = []
        with exclusive(lock, what="this installation"):
            if not journal.exists():
                return
            try:
                for source, target in _moves(script):
                    if source.exists():
                        self.rename(source, target)
                        done.insert(0, (source, target))
            except OSError:
                for source, target in done:
                    self.rename(target, source)

    def _is_open(self, path: Path) -> bool:
        real = path.parent.resolve() / path.name
        return any(each == real or real in each.parents for each in self._open)


def _refused(path: Path) -> PermissionError:
    return PermissionError(errno.EACCES, "The process cannot access the file because it is being used", str(path))


_WORD: Final = r"'((?:[^']|'')*)'"


def _assigned(script: str, before: str) -> str:
    found = re.search(before + _WORD, script)
    if found is None:
        msg = "the helper's script is not what it was"
        raise ValueError(msg)
    return _plain(found[1])


def _moves(script: str) -> list[tuple[Path, Path]]:
    pairs = re.findall(rf"^    ,@\({_WORD}, {_WORD}\)$", script, re.MULTILINE)
    return [(Path(_plain(old)), Path(_plain(new))) for old, new in pairs]


def _plain(quoted: str) -> str:
    for quote in "'\u2018\u2019\u201a\u201b":
        quoted = quoted.replace(quote * 2, quote)
    return quoted
