"""Making sense of the disk: which state holds, given what is written and what is there. Pure.

The written state is believed where it agrees with the tree that is selected. Where it is lost, damaged or overtaken
(somebody moved the link by hand, copied the installation, removed a tree), the trees and what is written beside each of
them make up for it. Nothing here runs when all is well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from instar.errors import InstallFailed
from instar.install.arrangement import Selected, Selection
from instar.install.books import Entry
from instar.install.state import Phase, State, Tree

__all__ = ["Disk", "reconcile"]


@dataclass(frozen=True, slots=True)
class Disk:
    """What is there: the selection, what is written beside each tree, and the names of the trees' folders.

    ``moves``: the selected tree does not stand among the others (in place).
    """

    selection: Selection
    entries: Mapping[str, Entry]
    folders: frozenset[str]
    moves: bool


def reconcile(state: State | None, disk: Disk) -> State:
    """Give the state that holds. Its current tree may yet have to be selected.

    Raises:
        InstallFailed: what runs cannot be told.

    """
    return _without_missing(_choose(state, disk), disk)


def _choose(state: State | None, disk: Disk) -> State:
    # 1. The written state and the selected tree agree.
    if state is not None and state.current is not None and disk.selection.name == state.current.name:
        return state
    # 2. One of our trees is selected, and the state knows nothing of it.
    if (entry := disk.entries.get(disk.selection.name or "")) is not None:
        return _from_entries(state, entry, disk)
    # 3. Nothing is selected: what should be, or the one before it, or whatever proved itself.
    if disk.selection.kind is Selected.MISSING:
        return _choose_another(state, disk)
    # 4. What stands there is unknown. In place its number changes with the disk: the written state is right.
    if state is not None and state.current is not None:
        return state
    # 5. The state is lost too. In place it is the only tree that does not stand among the others.
    away = [entry for name, entry in disk.entries.items() if name not in disk.folders]
    if disk.moves and len(away) == 1:
        return _from_entries(state, away[0], disk)
    if not disk.moves:
        return _choose_another(state, disk)
    if state is not None:
        return state
    msg = "It cannot be told which release is installed here: the files that say so are lost."
    raise InstallFailed(msg, hint="Remove the state folder and adopt the app again, or install it anew.")


def _from_entries(state: State | None, entry: Entry, disk: Disk) -> State:
    previous = _newest_confirmed(disk, without=entry.tree.name)
    return State(
        phase=Phase.STEADY if entry.confirmed or previous is None else Phase.PENDING,
        current=entry.tree,
        previous=previous,
        failed=state.failed if state else (),
    )


def _choose_another(state: State | None, disk: Disk) -> State:
    failed = state.failed if state else ()
    if state is not None and state.current is not None and state.current.name in disk.folders:
        return state
    known = state.previous if state is not None else None
    tree = known if known is not None and known.name in disk.folders else _newest_confirmed(disk, without=None)
    staged = state.staged if state is not None and state.staged != tree else None
    if tree is None:
        return State(staged=staged, failed=failed)
    return State(phase=Phase.STEADY, current=tree, staged=staged, failed=failed)


def _newest_confirmed(disk: Disk, *, without: str | None) -> Tree | None:
    trees = [
        entry.tree
        for name, entry in disk.entries.items()
        if entry.confirmed and name in disk.folders and name != without
    ]
    return max(trees, key=lambda tree: tree.release.version, default=None)


def _without_missing(state: State, disk: Disk) -> State:
    if state.previous is not None and state.previous.name not in disk.folders:
        state = replace(state, previous=None)
    if state.staged is not None and state.staged.name not in disk.folders:
        state = replace(state, staged=None, at_start=False)
    return state
