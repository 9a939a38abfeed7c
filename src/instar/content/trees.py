"""Comparing a tree on disk with the manifest that describes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from instar.content.downloads import never_cancelled
from instar.model.manifest import Manifest
from instar.model.progress import OnProgress, ignore_progress

__all__ = ["Difference", "Problem", "verify_tree"]


class Difference(StrEnum):
    """How an entry differs. The values are shown to people."""

    MISSING = "missing"
    CHANGED = "changed"
    EXTRA = "not part of the release"


@dataclass(frozen=True, slots=True)
class Problem:
    """An entry of the tree that is not as signed. ``path`` is relative, with ``/``."""

    path: str
    difference: Difference


def verify_tree(
    root: Path,
    manifest: Manifest,
    *,
    keep: Callable[[str], bool] = lambda _: False,
    progress: OnProgress = ignore_progress,
    cancelled: Callable[[], bool] = never_cancelled,
) -> list[Problem]:
    """Hash a whole tree and list what differs from its manifest, sorted by path. Links are not followed.

    Args:
        root: the tree.
        manifest: what it should be.
        keep: says of a relative path that it is the user's own: then it is not reported as extra.
        progress: told of the bytes read.
        cancelled: asked between files.

    Raises:
        Cancelled: ``cancelled()`` became true.

    """
    raise NotImplementedError
