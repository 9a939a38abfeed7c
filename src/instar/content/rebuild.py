"""A release's tree from pieces: downloads, and the content of trees that are here already.

Nothing on the disk is believed: content is hashed as it is read, and every file again as it is written.
Making the tree durable and switching to it is the business of ``instar.install``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from instar.content.downloads import Downloads, never_cancelled
from instar.errors import InstallFailed
from instar.model.manifest import Manifest
from instar.model.progress import OnProgress, ignore_progress
from instar.policy.route import Inventory, Place, Plan
from instar.storage.ports import Reader

__all__ = ["BaseChanged", "Source", "make_tree", "rebuild", "take_inventory"]


@dataclass(frozen=True, slots=True)
class Source:
    """A tree on this machine and what it is supposed to be."""

    root: Path
    manifest: Manifest


class BaseChanged(InstallFailed):
    """Files that the plan builds on are not what they are supposed to be. Plan again without ``places``."""

    def __init__(self, places: frozenset[Place]) -> None:
        super().__init__(f"{len(places)} installed files were changed by something else.")
        self.places = places


def take_inventory(sources: Sequence[Source], *, without: frozenset[Place] = frozenset()) -> Inventory:
    """Take stock of what is here, with the codecs that this machine has. Sizes are looked at, contents are not.

    Args:
        sources: in the order of preference; a ``Place`` of the plan names them by number.
        without: files known to be damaged.

    """
    raise NotImplementedError


def rebuild(
    plan: Plan,
    roots: Sequence[Path],
    downloads: Downloads,
    destination: Path,
    *,
    progress: OnProgress = ignore_progress,
    cancelled: Callable[[], bool] = never_cancelled,
) -> None:
    """Make the plan's tree in the empty (or not yet existing) folder ``destination``.

    Args:
        plan: all of its pieces are in ``downloads``.
        roots: the trees of the inventory, by number.
        downloads: what was fetched.
        destination: stays behind half made when this fails; the caller removes it.
        progress: told of the bytes of the finished tree.
        cancelled: asked between blocks.

    Raises:
        BaseChanged: an old file is not what it should be; plan again without it.
        Untrusted: the pieces are what was signed, but do not make the files that were signed.
        Cancelled: ``cancelled()`` became true.
        InstallFailed: this machine could not write the tree.

    """
    raise NotImplementedError


def make_tree(  # noqa: PLR0913  # the subject and its surroundings; all but the first four have names
    manifest: Manifest,
    sources: Sequence[Source],
    downloads: Downloads,
    destination: Path,
    *,
    reader: Reader,
    progress: OnProgress = ignore_progress,
    cancelled: Callable[[], bool] = never_cancelled,
) -> Plan:
    """Plan, fetch and rebuild; start over without the files that turn out to be changed, until the tree is there.

    Returns the plan that succeeded. Raises as ``Downloads.fetch`` and ``rebuild`` do, ``BaseChanged`` excepted.
    """
    raise NotImplementedError
