"""What can go wrong, in five families by *what the caller may do about it*.

Catch a family with ``except``; show ``str(error)`` to a person: it says what happened and, after it, what to do.
This module does not translate foreign exceptions; each door does that for what passes through it.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

__all__ = [
    "Busy",
    "Cancelled",
    "Conflict",
    "Expired",
    "InstallFailed",
    "InstarError",
    "Misconfigured",
    "NotFound",
    "Unavailable",
    "Untrusted",
]


class InstarError(Exception):
    """Root of everything instar raises on purpose.

    Args:
        message: what happened, one sentence, for a person.
        hint: what that person can do now, one sentence; shown behind the message.

    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} {self.hint}"


class Misconfigured(InstarError):
    """A person must change something: an argument, a file, a setting."""

    exit_code = 2


class Untrusted(InstarError):
    """What came from outside is not what the owner signed. Stop, keep what runs, report it."""

    exit_code = 3


class Expired(Untrusted):
    """The signed metadata is too old to be believed: a freeze attack, or a publisher who sleeps."""

    def __init__(self, message: str, *, since: datetime, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.since = since


class Unavailable(InstarError):
    """Something outside did not answer, or not in time. Try again later; nothing is lost."""

    exit_code = 4


class NotFound(Unavailable):
    """The storage answered, and it holds no such object."""


class Cancelled(Unavailable):
    """The caller asked to stop. What was downloaded so far is kept and will be used next time."""


class InstallFailed(InstarError):
    """This machine could not take the release. ``running`` says what it runs now."""

    exit_code = 5

    def __init__(self, message: str, *, running: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.running = running


class Busy(InstarError):
    """Somebody else holds the lock. Try again when they are done."""

    exit_code = 6


class Conflict(Busy):
    """Somebody else changed the same object first."""
