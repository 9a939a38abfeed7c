"""What a platform must offer so that trees can be selected and exchanged. One file beside this for each platform."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

__all__ = ["HandOver", "Platform"]


@dataclass(frozen=True, slots=True)
class HandOver:
    """Renames that a helper does when the app has exited.

    ``renames`` in order, each undone when a later one fails; only while ``journal`` exists, and holding ``lock``.
    ``restart`` is the command that is run afterwards in any case, empty for none.
    """

    state_folder: Path
    journal: Path
    lock: Path
    renames: tuple[tuple[Path, Path], ...]
    process: int
    restart: tuple[str, ...]


class Platform(ABC):
    """The few things that operating systems do differently. Methods raise ``OSError``; what they did is durable."""

    has_helper: ClassVar[bool] = False
    """Whether a folder with open files cannot be renamed, so that ``hand_over`` is needed in place."""

    @abstractmethod
    def point(self, link: Path, target: Path) -> None:
        """Make ``link`` lead to the folder ``target``, replacing where it led before.

        Killed half-way it leads to the old or the new folder, or (where the system has nothing better) nowhere; the
        next ``point`` puts that right.
        """

    @abstractmethod
    def pointed(self, link: Path) -> Path | None:
        """Give the folder that ``link`` leads to, absolute, whether or not it exists; None when there is no link."""

    @abstractmethod
    def unpoint(self, link: Path) -> None:
        """Remove ``link``, not what it leads to. That there is none is no error."""

    @abstractmethod
    def exchange(self, first: Path, second: Path) -> bool:
        """Exchange two folders in one step; False, with nothing done, where system or file system cannot."""

    @abstractmethod
    def move(self, source: Path, target: Path) -> None:
        """Rename a folder or file within one file system. A file at ``target`` is replaced, a folder never."""

    @abstractmethod
    def remove_tree(self, path: Path) -> None:
        """Remove a file, link or folder with all that is in it. That there is nothing is no error."""

    @abstractmethod
    def is_running(self, process: int) -> bool:
        """Say whether the process with this id lives."""

    def hand_over(self, task: HandOver) -> None:
        """Start a helper that does ``task`` when the app has exited. Only where ``has_helper``."""
        raise NotImplementedError(task)

    def command(self, argv: Sequence[str], tree: Path) -> list[str]:
        """Give ``argv``, whose first word is a path in ``tree``, as the system can start it."""
        return [str(tree.joinpath(*argv[0].split("/"))), *argv[1:]]
