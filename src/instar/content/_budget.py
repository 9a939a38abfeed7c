"""A bound on the memory that several threads use together."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

__all__ = ["MemoryBudget"]


class MemoryBudget:
    """Lets work begin only while what is under way holds no more than ``limit`` bytes, or nothing is under way.

    So work that needs more than the limit is still done, but alone.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._condition = threading.Condition()

    @contextlib.contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Wait for room for ``size`` bytes, and keep it for the length of a ``with`` block."""
        with self._condition:
            self._condition.wait_for(lambda: not self._held or self._held + size <= self._limit)
            self._held += size
        try:
            yield
        finally:
            with self._condition:
                self._held -= size
                self._condition.notify_all()
