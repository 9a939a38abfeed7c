"""Time, as an argument. Nothing above this floor asks the machine for it directly."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """What time it is, and how to wait."""

    def now(self) -> datetime:
        """Give the time of day, with its zone. It may be wrong, and may jump."""

    def monotonic(self) -> float:
        """Give seconds since some moment; it never runs backward."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Give the time of day in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Give seconds since some moment."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)
