"""How a release gets onto a device: which bytes to fetch, and what each file is made from. One pure function.

The price of a plan is the bytes it downloads. Whether what the inventory names is really there, unchanged, is found out
when it is read (``instar.content.rebuild``); here it is taken as said.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from instar.model.digest import Digest
from instar.model.manifest import Codec, File, Manifest, Patch
from instar.model.names import TreePath

__all__ = [
    "MAX_GAP",
    "MAX_RANGE",
    "FromFrame",
    "FromOld",
    "FromPatch",
    "Inventory",
    "Means",
    "OldChunk",
    "Piece",
    "Place",
    "Plan",
    "Range",
    "Segment",
    "Step",
    "plan_route",
]

MAX_GAP: Final = 64 << 10
"""Bytes between two pieces that are fetched for nothing rather than paying for another request."""

MAX_RANGE: Final = 8 << 20
"""Bytes after which a run of pieces is split, so that several connections share it."""


class Means(StrEnum):
    """What a file, or the bytes of a download, are for. The values are shown to people."""

    COPY = "unchanged"
    PATCH = "patches"
    CHUNKS = "chunks"
    SOLID = "full archive"


@dataclass(frozen=True, slots=True)
class Place:
    """A file on this machine: ``path`` in the tree number ``source`` of those that the inventory was made from."""

    source: int
    path: TreePath


@dataclass(frozen=True, slots=True)
class OldChunk:
    """A chunk on this machine: in the file at ``place``, from ``offset``."""

    place: Place
    offset: int


@dataclass(frozen=True)
class Inventory:
    """What content is on this machine, and which codecs this machine can decode."""

    files: Mapping[Digest, Place] = field(default_factory=dict)
    chunks: Mapping[Digest, OldChunk] = field(default_factory=dict)
    codecs: frozenset[Codec] = frozenset()

    @classmethod
    def of(
        cls,
        manifests: Sequence[Manifest],
        *,
        codecs: Collection[Codec],
        without: Collection[Place] = (),
    ) -> Inventory:
        """Take stock of trees by their manifests; ``manifests[n]`` describes the tree number ``n``.

        Args:
            manifests: of the trees on this machine, the most trusted first: it is used where several hold the same.
            codecs: what this machine can decode.
            without: files that are missing or damaged; nothing is planned from them.

        """
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class FromOld:
    """``length`` bytes at ``offset`` of a file on this machine; ``digest`` is what these bytes must have."""

    place: Place
    offset: int
    length: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class FromFrame:
    """``length`` bytes at ``offset`` of the decompressed frame number ``frame``."""

    frame: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class FromPatch:
    """The output of a patch. ``bases`` says where each part of its base lies."""

    patch: Patch
    bases: tuple[Place, ...]


Segment = FromOld | FromFrame | FromPatch


@dataclass(frozen=True, slots=True)
class Step:
    """How one file is made: its segments in order. ``means`` is the dearest of theirs. Solid files have no segments."""

    file: File
    means: Means
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes to download that are verified as one: ``length`` at ``offset`` of the object ``key``."""

    key: str
    offset: int
    length: int
    digest: Digest
    means: Means


@dataclass(frozen=True, slots=True)
class Range:
    """One request: pieces of one object that lie close together, in order."""

    key: str
    offset: int
    length: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Plan:
    """What to download and how to make every file of ``manifest`` from it and from what is here."""

    manifest: Manifest
    steps: tuple[Step, ...]
    pieces: tuple[Piece, ...]
    ranges: tuple[Range, ...]

    @property
    def download_size(self) -> int:
        """Bytes that will be fetched, gaps between close pieces included."""
        return sum(part.length for part in self.ranges)

    @property
    def full_size(self) -> int:
        """Bytes that would be fetched by a device that has nothing."""
        raise NotImplementedError

    @property
    def requests(self) -> int:
        """Number of requests."""
        return len(self.ranges)

    @property
    def download_by_means(self) -> dict[Means, int]:
        """Bytes to download by what they are for. Gaps are not counted."""
        raise NotImplementedError

    @property
    def result_by_means(self) -> dict[Means, int]:
        """Bytes of the finished tree by how they are made: the explanation of ``download_size``."""
        raise NotImplementedError


def plan_route(manifest: Manifest, inventory: Inventory) -> Plan:
    """Choose for every file the cheapest of copying, patching, chunks and the solid archive."""
    raise NotImplementedError


def group_pieces(pieces: Collection[Piece]) -> tuple[Range, ...]:
    """Join pieces that lie close together in one object into requests."""
    raise NotImplementedError
