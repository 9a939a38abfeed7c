"""A clock that a test turns by hand."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

__all__ = ["FakeClock"]


class FakeClock:
    """A clock that stands still until it is told otherwise. Sleeping turns it and returns at once.

    Safe to use from several threads.

    Args:
        now: the time of day that it shows first, with its zone.
        step: seconds that pass at each look at ``monotonic``, for code that measures how long something takes.

    Attributes:
        slept: every sleep that was asked for, in seconds.

    """

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC), *, step: float = 0.0) -> None:
        self.slept: list[float] = []
        self._now = now
        self._passed = 0.0
        self._step = step
        self._turning = threading.Lock()

    def now(self) -> datetime:
        """Give the time of day."""
        with self._turning:
            return self._now

    def monotonic(self) -> float:
        """Give the seconds that have passed; each look adds the step."""
        with self._turning:
            self._pass(self._step)
            return self._passed

    def sleep(self, seconds: float) -> None:
        """Let the time pass, without waiting."""
        with self._turning:
            self.slept.append(seconds)
            self._pass(seconds)

    def advance(self, duration: timedelta) -> None:
        """Let time pass."""
        with self._turning:
            self._pass(duration.total_seconds())

    def set(self, now: datetime) -> None:
        """Change the time of day, as a person or a time server does; no time passes by it."""
        with self._turning:
            self._now = now

    def _pass(self, seconds: float) -> None:
        self._passed += seconds
        self._now += timedelta(seconds=seconds)
