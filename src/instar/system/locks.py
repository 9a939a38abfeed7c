"""Locks between processes, held through the operating system: they vanish with the process that holds them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from instar.errors import Busy

__all__ = ["exclusive", "exclusive_folder"]


@contextlib.contextmanager
def exclusive(path: Path, *, what: str) -> Iterator[None]:
    """Hold the lock file ``path`` for the length of a ``with`` block. It is created at need and never removed.

    Args:
        path: the lock file; its folder must exist.
        what: what is locked, for the message, like "this installation".

    Raises:
        Busy: another process (or thread) holds it.
        OSError: the file cannot be opened, or its file system knows no locks.

    """
    with _held(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644), what):
        yield


@contextlib.contextmanager
def exclusive_folder(folder: Path, *, what: str) -> Iterator[None]:
    """Hold a folder itself, for one where no lock file may appear. POSIX only.

    Raises:
        Busy: another process (or thread) holds it.
        OSError: the folder cannot be opened, or its file system knows no locks.

    """
    with _held(os.open(folder, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)), what):
        yield


@contextlib.contextmanager
def _held(descriptor: int, what: str) -> Iterator[None]:
    try:
        try:
            _lock(descriptor)
        except (BlockingIOError, PermissionError) as error:  # POSIX' and Windows' words for it
            msg = f"Another process is working on {what}."
            raise Busy(msg, hint="Try again when it is done.") from error
        yield
    finally:
        os.close(descriptor)


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
