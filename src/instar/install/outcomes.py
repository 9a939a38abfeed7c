"""What an installation answers: frozen values for the caller to act on or to show."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from instar.install.state import Failure, Installed, Phase

__all__ = ["Action", "StartReason", "Started", "Status", "Switched"]


@dataclass(frozen=True, slots=True)
class Status:
    """How an installation stands.

    ``current`` runs, ``previous`` can be gone back to, ``staged`` is complete and waits (``at_start``: for the app's
    next start). ``starts`` counts the starts of a pending release. ``unfinished`` says that a step was interrupted and
    will be finished by the next operation; the rest already tells what is selected.
    """

    phase: Phase
    current: Installed | None
    previous: Installed | None
    staged: Installed | None
    at_start: bool
    starts: int
    failed: tuple[Failure, ...]
    unfinished: bool


class Switched(StrEnum):
    """How a switch ended. The values are shown to people."""

    DONE = "the new release is selected"
    WHEN_APP_EXITS = "the new release will be selected as soon as the app exits"
    """Only for in-place installations on Windows, whose files cannot be replaced while they are open."""


class Action(StrEnum):
    """What an app does after ``started``."""

    RUN = "run on"
    RESTART = "restart"


class StartReason(StrEnum):
    """Why ``started`` asks for it. The values are shown to people."""

    NOTHING = "nothing happened"
    ROLLED_BACK = "the new release was not confirmed and was rolled back"
    FINISHED = "an interrupted switch was finished"
    SWITCHED = "a release that was waiting for this start was selected"
    UNHEALTHY = "a release that was waiting for this start failed its health command and was not selected"
    POSTPONED = "this start could not be recorded"


@dataclass(frozen=True, slots=True)
class Started:
    """What ``started`` found and did.

    ``problem`` is for a log: why nothing could be done, or what went wrong without harm. ``by_helper``: with
    ``RESTART``, the app only has to exit; a helper process does the rest and starts it again.
    """

    action: Action
    reason: StartReason
    problem: str | None = None
    by_helper: bool = False
