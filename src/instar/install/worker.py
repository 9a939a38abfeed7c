"""The hands of an installation: the lock, the journal, selecting a tree, putting right what was interrupted.

Which state is to follow is decided by the caller, with ``lifecycle``; here it is brought about.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from instar.errors import Busy, InstallFailed, Misconfigured
from instar.install.appdir.port import HandOver
from instar.install.arrangement import Arrangement, InPlace, Selected, folder_inode
from instar.install.books import Books, Entry
from instar.install.carry import carry_over, make_alike
from instar.install.healing import Disk, reconcile
from instar.install.journal import Journal, Step
from instar.install.outcomes import Switched
from instar.install.state import Installed, Phase, State, Tree
from instar.model.keep import Keep
from instar.system.clock import Clock
from instar.system.locks import exclusive

__all__ = ["Worker", "children"]

# Seconds after which a helper has certainly given up: it waits for an hour and then tries for a minute.
_HELPER_GONE: Final = 4000.0


class Worker:
    """Does the steps of one installation. One object for each ``Installation``."""

    def __init__(self, arrangement: Arrangement, clock: Clock) -> None:
        self.arrangement = arrangement
        self.books = Books(arrangement.state_folder)
        self._clock = clock
        self._staging = arrangement.state_folder / "staging"
        self._state: State | None = None
        self._guard = threading.Lock()
        self._holder: int | None = None

    @property
    def location(self) -> Path:
        """The folder that the user knows."""
        return self.arrangement.location

    @property
    def state_folder(self) -> Path:
        """The folder of what we keep."""
        return self.arrangement.state_folder

    # --- the lock, and the door through which every error leaves

    @property
    def is_held(self) -> bool:
        """Whether this thread holds the lock."""
        return self._holder == threading.get_ident()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock; again, in the thread that holds it."""
        if self.is_held:
            yield
            return
        if not self._guard.acquire(blocking=False):
            msg = "Another thread is working on this installation."
            raise Busy(msg, hint="Try again when it is done.")
        try:
            with exclusive(self.books.lock_path, what="this installation"):
                self._holder = threading.get_ident()
                self._state = None
                try:
                    yield
                finally:
                    self._holder = None
        finally:
            self._guard.release()

    @contextlib.contextmanager
    def door(self, failure: str) -> Iterator[None]:
        """Let errors of the system out as ``InstallFailed`` with what it means and what runs."""
        try:
            yield
        except OSError as error:
            why, hint = _explain(error)
            raise InstallFailed(f"{failure}: {why}.", running=self._running(), hint=hint) from error

    def _running(self) -> str | None:
        with contextlib.suppress(Exception):  # it is an extra to an error that has to get out
            current = self.look()[0].current
            return str(current.release.version) if current else None
        return None

    # --- the state

    @property
    def state(self) -> State:
        """The state, after ``recover``."""
        if self._state is None:
            self.recover()
        if self._state is None:
            msg = "an installation that was recovered has a state"
            raise AssertionError(msg)
        return self._state

    def set_state(self, state: State) -> None:
        """Write the state."""
        self.books.write_state(state)
        self._state = state

    def look(self) -> tuple[State, bool]:
        """Tell the state that holds and whether a step waits to be finished. Takes no lock, writes nothing."""
        journal = self.books.read_journal()
        if journal is None or journal.step is not Step.SELECT or journal.next is None:
            return self._reconciled()[0], journal is not None
        if self.arrangement.selected(journal.inodes).name == journal.target:
            return journal.next, True
        return self.books.read_state() or self._reconciled()[0], True

    def _reconciled(self) -> tuple[State, Disk, State | None]:
        written = self.books.read_state()
        entries = self.books.read_entries()
        inodes = {tree.name: -1 for tree in (written.trees if written else ())}
        inodes.update({name: entry.inode for name, entry in entries.items()})
        selection = self.arrangement.selected(inodes)
        folders = frozenset(path.name for path in children(self.arrangement.trees) if folder_inode(path) is not None)
        disk = Disk(selection, entries, folders, moves=isinstance(self.arrangement, InPlace))
        return reconcile(written, disk), disk, written

    def mark_confirmed(self, state: State) -> None:
        """Write beside the current tree of ``state`` that it proved itself."""
        tree = state.current
        if tree is None:
            return
        inode = folder_inode(self.place(tree, state)) or 0
        entry = Entry(tree, inode, confirmed=True)
        if self.books.read_entries().get(tree.name) != entry:
            self.books.write_entry(entry)

    # --- selecting

    def select(self, following: State, keep: Keep, restart: Sequence[str]) -> Switched:
        """Make the current tree of ``following`` the selected one, and ``following`` the state.

        Raises:
            OSError: it could not be done. What was selected is selected still; where even that could not be brought
                about, the journal stays and the next ``recover`` does it.

        """
        journal = self._plan(following)
        self._carry(journal, keep)
        self.books.write_journal(journal)
        try:
            self._select(journal)
        except OSError as error:
            if self._needs_helper(error, journal):
                return self._hand_over(journal, restart)
            self._undo(journal)
            raise
        self._state = following
        with contextlib.suppress(OSError):
            # It is selected, and the journal says what follows: what cannot be written now is written next time.
            self._finish(journal)
        return Switched.DONE

    def _plan(self, following: State) -> Journal:
        source, target = self.state.current, following.current
        if target is None:
            msg = "a state to be selected has a current tree"
            raise AssertionError(msg)
        trees = [tree for tree in (source, target) if tree]
        inodes = {tree.name: folder_inode(self.place(tree, self.state)) or 0 for tree in trees}
        return Journal(Step.SELECT, source.name if source else None, target.name, following, inodes)

    def _carry(self, journal: Journal, keep: Keep) -> None:
        if journal.source is None or journal.target is None:
            return
        old = self.arrangement.place(journal.source, selected=journal.source)
        new = self.arrangement.place(journal.target, selected=journal.source)
        if isinstance(self.arrangement, InPlace):
            # The folder itself is the user's: whom it lets in is not the release's to say.
            make_alike(old, new)
        if keep:
            carry_over(keep, old, new, self.make_scratch("carry"))

    def _select(self, journal: Journal) -> None:
        if journal.target is not None:
            self.arrangement.select(journal.source, journal.target, journal.inodes)

    def _finish(self, journal: Journal) -> None:
        if journal.target is None or journal.next is None:
            return
        self.arrangement.settle(journal.source, journal.target, journal.inodes)
        if journal.next.phase is Phase.STEADY:
            self.mark_confirmed(journal.next)
        self.set_state(journal.next)
        self.books.remove_journal()

    def _undo(self, journal: Journal) -> None:
        """Forget a step that could not be done, if the old tree is where it was."""
        selection = self.arrangement.selected(journal.inodes)
        if selection.name == journal.source or selection.kind is Selected.UNKNOWN:
            with contextlib.suppress(OSError):
                self.books.remove_journal()

    def _needs_helper(self, error: OSError, journal: Journal) -> bool:
        in_use = isinstance(error, PermissionError) and self.arrangement.platform.has_helper
        return (
            in_use and self.arrangement.selected(journal.inodes).name == journal.source and bool(self._renames(journal))
        )

    def _renames(self, journal: Journal) -> tuple[tuple[Path, Path], ...]:
        return () if journal.target is None else self.arrangement.renames(journal.source, journal.target)

    def _hand_over(self, journal: Journal, restart: Sequence[str]) -> Switched:
        """Let a helper do the step when this process has exited: its files are open as long as it runs."""
        try:
            self.books.write_journal(replace(journal, waits_for=os.getpid()))
            self.arrangement.platform.hand_over(
                HandOver(
                    state_folder=self.state_folder,
                    journal=self.books.journal_path,
                    lock=self.books.lock_path,
                    renames=self._renames(journal),
                    process=os.getpid(),
                    restart=tuple(restart),
                )
            )
        except OSError:
            self._undo(journal)
            raise
        return Switched.WHEN_APP_EXITS

    # --- putting right

    def recover(self) -> bool:
        """Finish or undo the step that was interrupted; say whether another tree is selected now than before.

        Raises:
            Busy: a helper waits for the app to exit.
            Misconfigured: the installation is being removed.

        """
        if not self.books.has_record():
            msg = f"The installation in {self.location} was removed."
            raise Misconfigured(msg, hint="Install the app anew.")
        journal = self.books.read_journal()
        if journal is None:
            return self._heal()
        if journal.step is Step.UNINSTALL:
            msg = f"The removal of the installation in {self.location} was interrupted."
            raise Misconfigured(msg, hint="Uninstall it once more, or install the app anew.")
        if self._is_waiting(journal):
            msg = "A release is going to be selected as soon as the app exits."
            raise Busy(msg, hint="Close the app and start it again.")
        moved = False
        selected = self.arrangement.selected(journal.inodes)
        if selected.name != journal.target:
            try:
                if selected.kind is not Selected.MISSING:
                    record = self.books.read_record()
                    # Once more: the app may have run since the interruption.
                    self._carry(journal, record.kept if record else Keep())
                self._select(journal)
            except OSError:
                return self._go_back()
            moved = True
        self._finish(journal)
        return moved

    def _is_waiting(self, journal: Journal) -> bool:
        if journal.waits_for is None:
            return False
        age = self._clock.now().timestamp() - self.books.journal_path.stat().st_mtime
        return abs(age) < _HELPER_GONE and self.arrangement.platform.is_running(journal.waits_for)

    def _go_back(self) -> bool:
        """Undo a step that cannot be finished: without it, the written state says what should be selected."""
        self.books.remove_journal()
        return self._heal()

    def _heal(self) -> bool:
        """Make the written state and the disk agree; writes nothing where they do."""
        state, disk, written = self._reconciled()
        moved = False
        tree = state.current
        if tree is not None and disk.selection.name != tree.name:
            trusted = disk.moves and disk.selection.kind is Selected.UNKNOWN
            if not trusted:
                self.arrangement.select(None, tree.name, {})
                moved = True
        if tree is not None:
            inode = folder_inode(self.place(tree, state)) or 0
            entry = disk.entries.get(tree.name)
            if entry is None or (disk.moves and entry.inode != inode):
                confirmed = entry.confirmed if entry else state.phase is Phase.STEADY
                self.books.write_entry(Entry(tree, inode, confirmed=confirmed))
        if state != written:
            self.books.write_state(state)
        self._state = state
        return moved

    # --- room to work in

    def place(self, tree: Tree, state: State) -> Path:
        """Give the folder of ``tree``."""
        return self.arrangement.place(tree.name, selected=state.current.name if state.current else None)

    def free_name(self, release: Installed) -> str:
        """Choose a folder's name for a new tree that no other has."""
        name = stem = f"{release.version}-{release.tree_digest.short}"
        taken = {path.name for path in children(self.arrangement.trees)} | set(self.books.read_entries())
        number = 2
        while name in taken:
            name = f"{stem}-{number}"
            number += 1
        return name

    def make_folders(self) -> None:
        """Make the folders that the steps need."""
        self.arrangement.trees.mkdir(exist_ok=True)
        self._staging.mkdir(exist_ok=True)

    def make_scratch(self, kind: str) -> Path:
        """Make an empty folder on the trees' file system; it is gone after the next ``tidy``."""
        self.make_folders()
        folder = self._staging / f"{kind}-{secrets.token_hex(8)}"
        folder.mkdir()
        return folder

    def tidy(self) -> None:
        """Remove what killed or finished operations left. Best effort: what is in use is left for the next time."""
        for path in children(self._staging):
            with contextlib.suppress(OSError):
                self.arrangement.platform.remove_tree(path)

    def prune(self) -> None:
        """Remove the trees that the state has no use for. Best effort, as ``tidy``."""
        if self.books.journal_path.exists():
            return
        needed = {self.place(tree, self.state) for tree in self.state.trees}
        for path in children(self.arrangement.trees):
            if path not in needed:
                with contextlib.suppress(OSError):
                    # Away first, so that no half of a tree is ever found under a tree's name.
                    trash = self._staging / f"trash-{secrets.token_hex(8)}"
                    self.make_folders()
                    self.arrangement.platform.move(path, trash)
                    self.arrangement.platform.remove_tree(trash)
        self.books.tidy(frozenset(tree.name for tree in self.state.trees))


def children(folder: Path) -> list[Path]:
    """Give what is in a folder, in order; nothing where there is no folder."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


_REASONS: Final = {
    errno.ENOSPC: ("the disk is full", "Free some space and try again."),
    errno.EDQUOT: ("your part of the disk is full", "Free some space and try again."),
    errno.EROFS: ("the disk is read-only", "Make it writable and try again."),
    errno.EACCES: ("permission was denied", "Close the app, or do it as the user who installed it."),
    errno.EPERM: ("permission was denied", "Close the app, or do it as the user who installed it."),
    errno.EIO: ("the disk does not work properly", "Check the disk."),
}


def _explain(error: OSError) -> tuple[str, str | None]:
    reason, hint = _REASONS.get(error.errno or 0, (error.strerror or str(error) or type(error).__name__, None))
    return (f"{reason} ({error.filename})" if error.filename else reason), hint
