"""What was fetched so far, kept on disk so that a broken download goes on at the byte where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from instar.model.progress import OnProgress, ignore_progress
from instar.policy.route import Piece, Plan
from instar.storage.ports import Reader

__all__ = ["CONNECTIONS", "Downloads", "never_cancelled"]

CONNECTIONS = 4
"""Requests under way at once."""


def never_cancelled() -> bool:
    """Go on: the default where nobody can ask to stop."""
    return False


class Downloads:
    """Pieces of packs in a folder. Which plan asked for them does not matter: a new plan finds what an older one got.

    Args:
        folder: created at need; the caller sees to it that one process at a time works in it.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def missing(self, plan: Plan) -> int:
        """Count the bytes of the plan that are not here yet."""
        raise NotImplementedError

    def fetch(
        self,
        plan: Plan,
        reader: Reader,
        *,
        progress: OnProgress = ignore_progress,
        cancelled: Callable[[], bool] = never_cancelled,
    ) -> None:
        """Fetch what the plan needs and is not here, several ranges at once, and verify every piece.

        A piece that comes wrong is dropped and fetched afresh once.

        Raises:
            Untrusted: a piece came wrong twice.
            Unavailable: the storage did not deliver. What came is kept.
            Cancelled: ``cancelled()`` became true. What came is kept.
            InstallFailed: this disk could not take it, or it is full. What came is kept.

        """
        raise NotImplementedError

    def read(self, piece: Piece) -> bytes:
        """Give a piece that was fetched, verified once more.

        Raises:
            InstallFailed: it is not here, or was damaged on this disk since; it is dropped, so fetching heals it.

        """
        raise NotImplementedError

    def clear(self) -> None:
        """Remove everything: the release is installed, or no longer wanted."""
        raise NotImplementedError
