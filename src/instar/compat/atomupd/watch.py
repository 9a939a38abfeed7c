"""Noticing that a pool has changed, by looking at it again and again. No chunk store is ever entered.

Looking costs a walk over the pool's folders, a fraction of a second for ten thousand images; what it needs from the
system is nothing but that, so it works on every file system, over the network too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from instar.compat.atomupd.pool import MANIFEST, walk_folders
from instar.system.clock import Clock

__all__ = ["fingerprint", "watch"]

_SHARE: Final = 20
"""Looking may take one part in so many of the time."""


def fingerprint(pool: Path, *, besides: Path | None = None) -> bytes:
    """Give a digest that changes when a manifest, a bundle or a store comes, goes or (manifests) is changed.

    Args:
        pool: the pool's folder.
        besides: another file whose change counts, like the configuration.

    """
    digest = hashlib.sha256()
    for folder, files, stores in walk_folders(pool):
        digest.update(f"\0{folder}\0{files}\0{stores}".encode(errors="surrogateescape"))
        for name in files:
            if name.endswith(MANIFEST):
                digest.update(_state(os.path.join(folder, name)))  # noqa: PTH118  # ten thousand times
    if besides is not None:
        digest.update(_state(os.fspath(besides)))
    return digest.digest()


def watch(
    look: Callable[[], bytes],
    act: Callable[[], bool],
    *,
    clock: Clock,
    interval: float,
    every: float | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Act now, and whenever what ``look`` sees has changed and then stood still for one interval, until ``stop``.

    Args:
        look: gives what is seen as a digest.
        act: what is to be done; it says whether it was, or is to be tried again without a change.
        clock: to wait by.
        interval: seconds between two looks, at the least.
        every: seconds after which to act without a change too; None: never.
        stop: asked before each look.

    """
    seen = look()
    acted = clock.monotonic()
    done = seen if act() else None
    waiting: bytes | None = None
    while not stop():
        begin = clock.monotonic()
        seen = look()
        is_due = seen != done or (every is not None and begin - acted >= every)
        # A pool into which an image is just being copied is not whole yet: wait until it stands still.
        if is_due and seen == waiting:
            acted = begin
            done = seen if act() else None
        waiting = seen
        clock.sleep(max(interval, (clock.monotonic() - begin) * _SHARE))


def _state(path: str) -> bytes:
    try:
        found = os.stat(path)  # noqa: PTH116  # ten thousand times
    except OSError:
        return b"\0"
    return f"{found.st_mtime_ns} {found.st_size} {found.st_ino}".encode()
