"""How long one call may take, and how slow it may be. Knows time and numbers of bytes, nothing of sockets."""

from __future__ import annotations

from typing import Final

from instar.system.clock import Clock

__all__ = ["Pace", "TooSlow"]

# Bytes that a server may send before the content begins: several times what real ones send, redirects with their
# cookies included. Without it a server could send headers, or "100 Continue", without end.
_MAX_HEAD: Final = 256 * 1024


class TooSlow(TimeoutError):
    """A server sends, but not enough. The message is for a person."""


class Pace:
    """Watches one call: its total time, and the speed of each window of time.

    The time that the caller spends on a block is not counted: it may pause for as long as it likes.

    Args:
        clock: where time comes from.
        total: seconds that the whole call may take, attempts and waiting included; None for any.
        silence: seconds to wait for the next byte.
        least_speed: bytes a second that are not too slow, on average over a window.
        window: seconds of such a window.

    """

    def __init__(
        self,
        clock: Clock,
        *,
        total: float | None,
        silence: float,
        least_speed: float,
        window: float,
    ) -> None:
        self._clock = clock
        self._total = total
        self._silence = silence
        self._least_speed = least_speed
        self._window = window
        self._spent = 0.0
        self._running_since: float | None = None
        self._window_began = 0.0
        self._window_bytes = 0
        self._head: int | None = None
        self.received = 0

    def resume(self) -> None:
        """Start the watch, which stands still when a call begins and while the caller works."""
        if self._running_since is None:
            self._running_since = self._clock.monotonic()

    def pause(self) -> None:
        """Stop the watch."""
        self._spent = self._elapsed()
        self._running_since = None

    def begin_attempt(self) -> None:
        """Begin a new window and a new head: what an earlier connection did is not this one's fault."""
        self._window_began = self._elapsed()
        self._window_bytes = 0
        self._head = 0

    def end_head(self) -> None:
        """Note that from here on content comes."""
        self._head = None

    def left(self) -> float | None:
        """Give the seconds that are left of the total; None when there is none to keep.

        Raises:
            TooSlow: there are none left.

        """
        if self._total is None:
            return None
        left = self._total - self._elapsed()
        if left <= 0:
            msg = f"it took longer than the {self._total:g} seconds that it may take"
            raise TooSlow(msg)
        return left

    def patience(self) -> float:
        """Give the seconds to wait for the next byte.

        Raises:
            TooSlow: the total is used up.

        """
        left = self.left()
        return self._silence if left is None else min(left, self._silence)

    def note(self, count: int) -> None:
        """Count bytes that came.

        Raises:
            TooSlow: they came too slowly, or there is no end of headers.

        """
        self.received += count
        self._window_bytes += count
        if self._head is not None:
            self._head += count
            if self._head > _MAX_HEAD:
                msg = f"it sent {_MAX_HEAD} bytes of headers and no content"
                raise TooSlow(msg)
        self.left()
        now = self._elapsed()
        seconds = now - self._window_began
        if seconds < self._window:
            return
        if self._window_bytes < self._least_speed * seconds:
            speed = self._window_bytes / seconds
            msg = f"it sent only {speed:.0f} bytes a second, and {self._least_speed:g} is the least"
            raise TooSlow(msg)
        self._window_began = now
        self._window_bytes = 0

    def _elapsed(self) -> float:
        if self._running_since is None:
            return self._spent
        return self._spent + self._clock.monotonic() - self._running_since
