"""The way from one release to another, past checkpoints that cannot be skipped. Values in, a way out.

Every selection in instar goes through :func:`climb`: our own channels (:mod:`instar.policy.select`) and the protocols
of others, which translate what they know into rungs and a standing. Who may be offered what is decided before: a rung
that is not to be had is simply not handed in.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["Aim", "Ladder", "Orderable", "Rung", "Standing", "climb", "pick", "select_way"]


class Orderable(Protocol):
    """What releases are put in order by. Two of them may be equal."""

    def __lt__(self, other: Any, /) -> bool:  # noqa: ANN401  # of its own kind; a protocol cannot say so
        """Whether this one is older."""


Release = TypeVar("Release")


@dataclass(frozen=True, slots=True)
class Rung(Generic[Release]):
    """A release that is on offer.

    ``requires`` is the checkpoint that must have been passed before it, ``introduces`` the one that it passes: 0 for
    none. A ``virtual`` rung is no release at all: whoever reaches it has passed its checkpoint without installing
    anything. Releases of different ``line`` are never mixed on one way.
    """

    release: Release
    order: Orderable
    requires: int = 0
    introduces: int = 0
    virtual: bool = False
    line: Hashable = None


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a device stands: the order of what it runs, and the checkpoint that it has passed."""

    order: Orderable
    checkpoint: int = 0


class Aim(Enum):
    """What is asked for."""

    NEWER = "the newest, if it is newer than what runs"
    NEWEST = "the newest, whatever it is that runs: its order is not known"
    PENULTIMATE = "the one before the newest, whatever it is that runs"
    RETURN = "the newest, although it may be older than what runs"


@dataclass(frozen=True)
class Ladder(Generic[Release]):
    """Rungs in order, oldest first, prepared once and asked for many devices.

    ``tops`` are the rungs that a way can end at, ``checkpoints`` those of each line that a way can lead over.
    """

    rungs: tuple[Rung[Release], ...]
    tops: tuple[Rung[Release], ...] = field(init=False)
    checkpoints: dict[Hashable, tuple[Rung[Release], ...]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tops", tuple(rung for rung in self.rungs if not rung.virtual))
        checkpoints: dict[Hashable, tuple[Rung[Release], ...]] = {}
        for rung in self.rungs:
            if rung.introduces:
                checkpoints[rung.line] = (*checkpoints.get(rung.line, ()), rung)
        object.__setattr__(self, "checkpoints", checkpoints)

    @classmethod
    def of(cls, rungs: Iterable[Rung[Release]]) -> Ladder[Release]:
        """Put rungs in order. Rungs that are equal in order stay in the order in which they came."""
        return cls(tuple(sorted(rungs, key=lambda rung: rung.order)))


def climb(ladder: Ladder[Release], top: Rung[Release], standing: Standing, aim: Aim) -> tuple[Rung[Release], ...]:
    """Give the releases to install one after the other to arrive at ``top``; empty where there is no way."""
    # 1. A checkpoint is never passed twice: what does not know the one that was passed is out of reach.
    if standing.checkpoint > top.requires:
        return ()
    # 2. Upward only, where nothing else was asked for.
    if aim is Aim.NEWER and not standing.order < top.order:
        return ()
    # 3. Every checkpoint between is taken, in order, in the line of the release aimed at.
    way: list[Rung[Release]] = []
    checkpoint = standing.checkpoint
    for rung in ladder.checkpoints.get(top.line, ()):
        if rung.order < top.order and rung.requires == checkpoint <= top.requires:
            checkpoint = rung.introduces
            if not rung.virtual:
                way.append(rung)
    if checkpoint != top.requires:
        return ()
    way.append(top)
    # 4. No cycles: a way that leads over what runs already would begin again at its end.
    if aim in {Aim.NEWER, Aim.RETURN} and any(_is_same(rung.order, standing.order) for rung in way):
        return ()
    return tuple(way)


def pick(ladder: Ladder[Release], standing: Standing, aim: Aim) -> tuple[Rung[Release], ...]:
    """Give the way to the newest rung, or to the one before it where that is aimed at."""
    back = 2 if aim is Aim.PENULTIMATE else 1
    return climb(ladder, ladder.tops[-back], standing, aim) if len(ladder.tops) >= back else ()


def select_way(
    ladders: Sequence[Ladder[Release]], standing: Standing, aim: Aim, *, may_return: bool
) -> tuple[Rung[Release], ...]:
    """Give the way on the first ladder that has one.

    Args:
        ladders: the widest choice first: with a stream's own releases also those of streams that are more stable.
        standing: where the device stands.
        aim: what it asks for.
        may_return: whether it is led back to an older release when there is no way to a newer one: its own was
            withdrawn, its line ended, or it changed to a stream that does not follow its own.

    """
    for ladder in ladders:
        if way := pick(ladder, standing, aim):
            return way
    if may_return and aim is Aim.NEWER:
        return select_way(ladders, standing, Aim.RETURN, may_return=False)
    return ()


def _is_same(one: Orderable, other: Orderable) -> bool:
    return not (one < other or other < one)
