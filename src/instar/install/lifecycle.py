"""The life of an installation as one table: what each event does in each phase. Pure: no disk, no clock.

An event bears the name of the tree it belongs to where it could otherwise be mistaken for another's. What cannot
happen raises ``Misconfigured``: a person (or the program in their name) asked for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from instar.errors import Misconfigured
from instar.install.state import Phase, State, Tree

__all__ = [
    "TABLE",
    "Adopted",
    "Confirmed",
    "Discarded",
    "Event",
    "Failed",
    "Next",
    "RolledBack",
    "Scheduled",
    "Staged",
    "Started",
    "Switched",
    "follow",
]

# Before this day there was no instar: a clock that shows an earlier one was not set.
_FIRST_DAY: Final = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Adopted:
    """An app that was there already was taken over as ``tree``."""

    tree: Tree


@dataclass(frozen=True, slots=True)
class Staged:
    """``tree`` is complete on the disk."""

    tree: Tree


@dataclass(frozen=True, slots=True)
class Scheduled:
    """The staged release is to be selected when the app starts next."""


@dataclass(frozen=True, slots=True)
class Discarded:
    """The staged release is not wanted any more."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The health command of the staged ``tree`` failed."""

    tree: str
    reason: str
    when: datetime


@dataclass(frozen=True, slots=True)
class Switched:
    """The staged ``tree`` was selected; ``proven`` when nobody needs to confirm it any more."""

    tree: str
    proven: bool


@dataclass(frozen=True, slots=True)
class Started:
    """The app starts. ``max_starts`` and ``deadline`` (seconds, None for none) bound how long it may go unconfirmed."""

    now: datetime
    max_starts: int
    deadline: float | None


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The running release says that it works."""


@dataclass(frozen=True, slots=True)
class RolledBack:
    """The previous release was selected again, in the place of ``tree``, for ``reason``."""

    tree: str
    reason: str
    when: datetime


Event = Adopted | Staged | Scheduled | Discarded | Failed | Switched | Started | Confirmed | RolledBack


@dataclass(frozen=True, slots=True)
class Next:
    """What follows: the state, and why the current release has to be rolled back now (None: it has not)."""

    state: State
    roll_back: str | None = None


def follow(state: State, event: Event) -> Next:
    """Give what follows ``event`` in ``state``.

    Raises:
        Misconfigured: it cannot happen in this state.

    """
    handler = TABLE.get((state.phase, type(event)))
    if handler is None:
        raise Misconfigured(_why_impossible(state, event))
    return handler(state, event)


def _adopt(state: State, event: Adopted) -> Next:
    return Next(replace(state, phase=Phase.STEADY, current=event.tree))


def _stage(state: State, event: Staged) -> Next:
    return Next(replace(state, staged=event.tree, at_start=False))


def _schedule(state: State, _: Scheduled) -> Next:
    _need_staged(state)
    return Next(replace(state, at_start=True))


def _discard(state: State, _: Discarded) -> Next:
    return Next(replace(state, staged=None, at_start=False))


def _fail(state: State, event: Failed) -> Next:
    staged = _need_staged(state, event.tree)
    return Next(replace(state.with_failure(staged.release, event.reason, event.when), staged=None, at_start=False))


def _switch_first(state: State, event: Switched) -> Next:
    # There is nothing to go back to, so there is nothing to wait for.
    staged = _need_staged(state, event.tree)
    return Next(replace(state, phase=Phase.STEADY, current=staged, staged=None, at_start=False))


def _switch_steady(state: State, event: Switched) -> Next:
    return _select(state, event, previous=state.current)


def _switch_pending(state: State, event: Switched) -> Next:
    # The release that is left never proved itself: what to go back to stays the one that did. Where none did (the
    # state was lost), one that at least started is better than nothing.
    return _select(state, event, previous=state.previous or state.current)


def _select(state: State, event: Switched, *, previous: Tree | None) -> Next:
    staged = _need_staged(state, event.tree)
    return Next(
        replace(
            state,
            phase=Phase.STEADY if event.proven else Phase.PENDING,
            current=staged,
            previous=previous,
            staged=None,
            at_start=False,
            starts=0,
            first_start=None,
        )
    )


def _start_steady(state: State, _: Started) -> Next:
    return Next(state)


def _start_pending(state: State, event: Started) -> Next:
    because = None
    if state.starts >= event.max_starts:
        because = f"it was started {state.starts} times and never confirmed that it works"
    elif _is_overdue(state, event):
        because = f"it did not confirm that it works within {event.deadline:g} seconds of its first start"
    if because is not None and state.previous is not None:
        return Next(state, roll_back=because)
    first = state.first_start
    if first is None or first < _FIRST_DAY or first > event.now:
        # The first start, or one whose time says nothing: the clock was not set then, or has been set back since.
        first = event.now
    return Next(replace(state, starts=state.starts + 1, first_start=first))


def _is_overdue(state: State, event: Started) -> bool:
    if event.deadline is None or state.first_start is None or state.first_start < _FIRST_DAY:
        return False
    return (event.now - state.first_start).total_seconds() > event.deadline


def _confirm(state: State, _: Confirmed) -> Next:
    return Next(replace(state, phase=Phase.STEADY, starts=0, first_start=None))


def _confirm_again(state: State, _: Confirmed) -> Next:
    return Next(state)


def _roll_back(state: State, event: RolledBack) -> Next:
    if state.previous is None:
        msg = "There is no previous release to go back to."
        raise Misconfigured(msg, hint="Install another release instead.")
    if state.current is None or state.current.name != event.tree:
        msg = "Another release is selected than the one that was to be rolled back."
        raise Misconfigured(msg)
    failed = state.with_failure(state.current.release, event.reason, event.when)
    return Next(
        replace(failed, phase=Phase.STEADY, current=state.previous, previous=None, starts=0, first_start=None),
    )


def _need_staged(state: State, name: str | None = None) -> Tree:
    if state.staged is None or (name is not None and state.staged.name != name):
        msg = "No release is staged, or another one than asked for."
        raise Misconfigured(msg, hint="Download an update first.")
    return state.staged


def _why_impossible(state: State, event: Event) -> str:
    if state.phase is Phase.EMPTY:
        return "No release is installed here yet."
    return f"An installation that is {state.phase} cannot be {type(event).__name__.lower()}."


TABLE: Final[Mapping[tuple[Phase, type[Event]], Callable[[State, Any], Next]]] = {
    # in phase       on event    does               which leads to
    (Phase.EMPTY, Adopted): _adopt,  # steady
    (Phase.EMPTY, Staged): _stage,
    (Phase.EMPTY, Discarded): _discard,
    (Phase.EMPTY, Failed): _fail,
    (Phase.EMPTY, Switched): _switch_first,  # steady
    (Phase.STEADY, Staged): _stage,
    (Phase.STEADY, Scheduled): _schedule,
    (Phase.STEADY, Discarded): _discard,
    (Phase.STEADY, Failed): _fail,
    (Phase.STEADY, Switched): _switch_steady,  # pending, or steady when proven
    (Phase.STEADY, Started): _start_steady,
    (Phase.STEADY, Confirmed): _confirm_again,
    (Phase.STEADY, RolledBack): _roll_back,  # steady
    (Phase.PENDING, Staged): _stage,
    (Phase.PENDING, Scheduled): _schedule,
    (Phase.PENDING, Discarded): _discard,
    (Phase.PENDING, Failed): _fail,
    (Phase.PENDING, Switched): _switch_pending,  # pending, or steady when proven
    (Phase.PENDING, Started): _start_pending,  # counted, or to be rolled back
    (Phase.PENDING, Confirmed): _confirm,  # steady
    (Phase.PENDING, RolledBack): _roll_back,  # steady
}
"""Every pair that can happen. What is not in it is refused."""
