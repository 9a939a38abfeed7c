"""What Linux and macOS have in common: a link is replaced by renaming another over it, in one step."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from instar.install.appdir.port import Platform
from instar.system import files

__all__ = ["Exchange", "Posix"]

Exchange = Callable[[bytes, bytes], int]
"""Exchanges two paths; gives 0, or the error number."""


class Posix(Platform):
    """Everything but the call that exchanges two folders, for which POSIX has no word.

    Args:
        call: that call.
        cannot: the error numbers by which it says that kernel or file system cannot.

    """

    def __init__(self, call: Exchange, *, cannot: Collection[int]) -> None:
        self._call = call
        self._cannot = cannot

    def exchange(self, first: Path, second: Path) -> bool:
        """Exchange two folders in one step, durably; False where kernel or file system cannot."""
        sys.audit("instar.exchange", str(first), str(second))
        number = self._call(os.fsencode(first), os.fsencode(second))
        if number in self._cannot:
            return False
        if number:
            raise OSError(number, os.strerror(number), str(first), None, str(second))
        files.sync_folder(first.parent)
        files.sync_folder(second.parent)
        return True

    def point(self, link: Path, target: Path) -> None:
        """Make ``link`` a relative symbolic link to ``target``, so that the whole installation can be moved."""
        # Always one name: what a killed process left there is replaced by the next.
        fresh = link.with_name(f".{link.name}.new")
        files.remove_tree(fresh)
        fresh.symlink_to(os.path.relpath(target, link.parent), target_is_directory=True)
        try:
            files.move(fresh, link)
        except OSError:
            files.remove_tree(fresh)
            raise

    def pointed(self, link: Path) -> Path | None:
        """Give the folder that ``link`` leads to."""
        try:
            target = link.readlink()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            if link.is_symlink():
                raise
            return None  # something else stands there
        return Path(os.path.normpath(link.parent / target))

    def unpoint(self, link: Path) -> None:
        """Remove ``link``."""
        files.remove_tree(link.with_name(f".{link.name}.new"))
        if link.is_symlink():
            link.unlink()
            files.sync_folder(link.parent)

    def move(self, source: Path, target: Path) -> None:
        """Rename, durably. A folder is never replaced, not even an empty one as POSIX would."""
        if target.is_dir() and not target.is_symlink():
            raise FileExistsError(17, os.strerror(17), str(target))
        files.move(source, target)

    def remove_tree(self, path: Path) -> None:
        """Remove whatever is at ``path``."""
        files.remove_tree(path)

    def is_running(self, process: int) -> bool:
        """Say whether the process with this id lives."""
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
