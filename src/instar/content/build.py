"""A folder into a release: a manifest, and the packs that its pieces lie in. Publisher's half.

Needs the ``publish`` extra. Signing and uploading are done elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from instar.model.manifest import Manifest
from instar.model.names import Name, ProductName
from instar.model.progress import OnProgress, ignore_progress
from instar.model.version import Version
from instar.storage.ports import Reader

__all__ = ["Built", "Effort", "Label", "PackFile", "Statistics", "build_release"]


class Effort(StrEnum):
    """How much time may be spent on making downloads small."""

    FAST = "fast"
    BEST = "best"


@dataclass(frozen=True, slots=True)
class Label:
    """What the release is called and said to be."""

    product: ProductName
    version: Version
    platform: Name
    notes: str = ""
    meta: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PackFile:
    """A file to upload: ``key`` in the storage, named by its content."""

    key: str
    path: Path
    size: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """What was done, in bytes: of the whole tree, of content no earlier release holds, and what each took compressed.

    ``patches`` is the number kept.
    """

    tree: int
    new: int
    chunk_pack: int
    patch_pack: int
    patches: int


@dataclass(frozen=True, slots=True)
class Built:
    """A release that is ready to be uploaded and signed."""

    manifest: Manifest
    files: tuple[PackFile, ...]
    statistics: Statistics


def build_release(  # noqa: PLR0913  # the subject and its surroundings; all but the first two have names
    folder: Path,
    label: Label,
    *,
    bases: Sequence[Manifest],
    earlier: Sequence[Manifest],
    reader: Reader,
    work: Path,
    effort: Effort = Effort.BEST,
    progress: OnProgress = ignore_progress,
) -> Built:
    """Make a release of a folder.

    Args:
        folder: the bundle.
        label: what the release is called.
        bases: releases that patches are made against, the most likely one on devices first.
        earlier: releases whose chunks need not be stored again: they stay in the repository as long as this one.
            Those of other platforms of the product count too.
        reader: the repository, to read the bases' content from.
        work: an empty folder on a disk with room for the packs and the bases' files; the packs are left in it.
        effort: how hard to compress and patch.
        progress: told of scanning, compressing and patching.

    Raises:
        Misconfigured: the folder cannot become a release.
        Unavailable: the bases' content could not be read.
        Untrusted: it is not what the bases' manifests say.
        InstallFailed: the disk of ``work`` is full or read-only.

    """
    raise NotImplementedError
