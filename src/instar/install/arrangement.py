"""The two layouts as one port: where trees are, which one is selected, and how another one comes to be.

A tree is selected in one step where platform and file system have one, else in steps that an interruption leaves
recognisable. Whoever calls ``select`` has written a journal; whoever finds one asks ``selected`` and calls ``select``
again.
"""

from __future__ import annotations

import contextlib
import errno
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from instar.install.appdir.port import Platform

__all__ = ["Arrangement", "InPlace", "Selected", "Selection", "Versioned", "folder_inode", "make_arrangement"]


class Selected(Enum):
    """What stands where the running tree should be."""

    KNOWN = "one of ours"
    UNKNOWN = "something that is none of ours"
    MISSING = "nothing"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which tree is selected: ``name`` with ``KNOWN``, else None."""

    kind: Selected
    name: str | None = None


_MISSING: Final = Selection(Selected.MISSING)
_UNKNOWN: Final = Selection(Selected.UNKNOWN)


class Arrangement(ABC):
    """One layout on one folder."""

    def __init__(self, location: Path, state_folder: Path, trees: Path, platform: Platform) -> None:
        self.location = location
        self.state_folder = state_folder
        self.trees = trees
        self.platform = platform

    @property
    @abstractmethod
    def entry(self) -> Path:
        """Where the running tree is always reached."""

    @abstractmethod
    def selected(self, inodes: Mapping[str, int]) -> Selection:
        """Look which tree is selected. ``inodes`` gives the folder's number of every tree that is known."""

    @abstractmethod
    def place(self, name: str, *, selected: str | None) -> Path:
        """Give where the tree ``name`` is, while ``selected`` is the selected one."""

    @abstractmethod
    def select(self, source: str | None, target: str, inodes: Mapping[str, int]) -> None:
        """Make ``target`` the selected tree in the place of ``source``; begin where an interruption ended.

        Raises:
            OSError: it could not be done; ``source`` is selected still (or ``selected`` tells otherwise).

        """

    @abstractmethod
    def settle(self, source: str | None, target: str, inodes: Mapping[str, int]) -> None:
        """Put everything in its proper place after ``target`` was selected. May be repeated."""

    @abstractmethod
    def unselect(self, trash: Path) -> None:
        """Let no tree be selected any more: what was is whole until it is gone. ``trash`` may take it."""

    @abstractmethod
    def renames(self, source: str | None, target: str) -> tuple[tuple[Path, Path], ...]:
        """Give the renames by which a helper would do ``select``."""


def make_arrangement(location: Path, platform: Platform, *, in_place: bool) -> Arrangement:
    """Give the layout of an installation in ``location``."""
    if in_place:
        state_folder = location.with_name(f".{location.name}.instar")
        return InPlace(location, state_folder, state_folder / "trees", platform)
    return Versioned(location, location / ".instar", location / "versions", platform)


class Versioned(Arrangement):
    """``current`` leads to ``versions/<name>``. No tree ever moves."""

    @property
    def entry(self) -> Path:
        """``current`` itself."""
        return self.location / "current"

    def selected(self, inodes: Mapping[str, int]) -> Selection:
        """Follow the link."""
        target = self.platform.pointed(self.entry)
        if target is None or not target.is_dir():
            return _MISSING
        if target.parent == self.trees and target.name in inodes:
            return Selection(Selected.KNOWN, target.name)
        return _UNKNOWN

    def place(self, name: str, *, selected: str | None) -> Path:
        """Give the tree's folder, the same whether selected or not."""
        del selected
        return self.trees / name

    def select(self, source: str | None, target: str, inodes: Mapping[str, int]) -> None:
        """Lead the link to the new tree."""
        del source, inodes
        tree = self.trees / target
        _need_folder(tree)
        self.platform.point(self.entry, tree)

    def settle(self, source: str | None, target: str, inodes: Mapping[str, int]) -> None:
        """Do nothing: everything is in its place."""

    def unselect(self, trash: Path) -> None:
        """Move all trees away, then remove the link: where a file is in use, nothing is done before that shows."""
        if self.trees.is_dir():
            self.platform.move(self.trees, trash)
        self.platform.unpoint(self.entry)

    def renames(self, source: str | None, target: str) -> tuple[tuple[Path, Path], ...]:
        """Give none: no helper is needed."""
        del source, target
        return ()


class InPlace(Arrangement):
    """The selected tree is the folder ``location`` itself; the others are in the state folder beside it."""

    @property
    def entry(self) -> Path:
        """The folder itself."""
        return self.location

    def selected(self, inodes: Mapping[str, int]) -> Selection:
        """Recognise the folder by its number, for after an exchange its name says nothing."""
        number = folder_inode(self.location)
        if number is None:
            return _MISSING
        for name, inode in inodes.items():
            # A tree that stands among the others is not the selected one, whatever a copied disk's numbers say.
            if inode == number and folder_inode(self.trees / name) != inode:
                return Selection(Selected.KNOWN, name)
        return _UNKNOWN

    def place(self, name: str, *, selected: str | None) -> Path:
        """Give the folder itself, or the place among the others."""
        return self.location if name == selected else self.trees / name

    def select(self, source: str | None, target: str, inodes: Mapping[str, int]) -> None:
        """Exchange the two folders, or rename one after the other where that cannot be done in one step."""
        fresh = self.trees / target
        _need_folder(fresh)
        standing = folder_inode(self.location)
        if standing is None:
            # The first release, or an interruption between the two renames.
            self.platform.move(fresh, self.location)
            return
        if source is None or standing != inodes.get(source):
            raise FileExistsError(errno.EEXIST, "something else stands in the app's place", str(self.location))
        if self.platform.exchange(self.location, fresh):
            return
        aside = self.trees / source
        self.platform.move(self.location, aside)
        try:
            self.platform.move(fresh, self.location)
        except OSError:
            self.platform.move(aside, self.location)
            raise

    def settle(self, source: str | None, target: str, inodes: Mapping[str, int]) -> None:
        """After an exchange the old tree stands under the new one's name: give it its own."""
        left = self.trees / target
        if source is not None and folder_inode(left) is not None and folder_inode(left) == inodes.get(source):
            self.platform.move(left, self.trees / source)

    def unselect(self, trash: Path) -> None:
        """Move the folder away in one step."""
        if folder_inode(self.location) is not None:
            self.platform.move(self.location, trash)

    def renames(self, source: str | None, target: str) -> tuple[tuple[Path, Path], ...]:
        """Give the two renames that ``select`` would do."""
        away = () if source is None else ((self.location, self.trees / source),)
        return (*away, (self.trees / target, self.location))


def folder_inode(path: Path) -> int | None:
    """Give the file system's number of a folder, None where there is none. On Windows it is the file id."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if not path.is_symlink() and path.is_dir():
            return path.lstat().st_ino
    return None


def _need_folder(path: Path) -> None:
    if folder_inode(path) is None:
        raise FileNotFoundError(errno.ENOENT, "the release's tree is gone", str(path))
