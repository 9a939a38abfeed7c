"""Ending soon after Ctrl-C, also while threads are in the middle of something that nobody can interrupt."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

from instar.cli import output

__all__ = ["INTERRUPTED", "stopping_soon"]

INTERRUPTED: Final = 130
"""Exit code: 128 + SIGINT, as shells have it."""

# Seconds in which work that can be interrupted clears up after itself. A thread that compresses a frame or compares
# two files as well as it can is in one call of a library for up to half a minute, and Python would wait for it.
_PATIENCE: Final = 1.0


@contextlib.contextmanager
def stopping_soon() -> Iterator[None]:
    """End the process at the latest a second after Ctrl-C. Only around what may be killed at any moment.

    Publishing may: what it leaves is cleared away by whoever publishes next.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    timer = threading.Timer(_PATIENCE, _end)
    timer.daemon = True

    def interrupt(number: int, frame: FrameType | None) -> None:
        if timer.ident is None:
            timer.start()
        signal.default_int_handler(number, frame)

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        # Ignored, as in a background job of a shell, or somebody else's: it stays so.
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)


def _end() -> None:
    output.show_cursor()
    output.complain("stopped.")
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(INTERRUPTED)
