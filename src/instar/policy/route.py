"""How a release gets onto a device: which bytes to fetch, and what each file is made from. One pure function.

The price of a plan is the bytes it downloads. Whether what the inventory names is really there, unchanged, is found out
when it is read (``instar.content.rebuild``); here it is taken as said.
"""

from __future__ import annotations

from bisect import bisect_right
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
    "frame_piece",
    "group_pieces",
    "patch_piece",
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
        excluded = frozenset(without)
        files: dict[Digest, Place] = {}
        chunks: dict[Digest, OldChunk] = {}
        for source, manifest in enumerate(manifests):
            for file in manifest.files:
                place = Place(source, file.path)
                if place in excluded or file.digest in files:
                    continue
                files[file.digest] = place
                offset = 0
                for number in file.chunks:
                    chunk = manifest.chunks[number]
                    chunks.setdefault(chunk.digest, OldChunk(place, offset))
                    offset += chunk.size
        return cls(files, chunks, frozenset(codecs))


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
    """How one file is made: its segments in order. ``means`` is the dearest of theirs."""

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
        return _full_size(self.manifest)

    @property
    def requests(self) -> int:
        """Number of requests."""
        return len(self.ranges)

    @property
    def download_by_means(self) -> dict[Means, int]:
        """Bytes to download by what they are for. Gaps are not counted."""
        sums: dict[Means, int] = {}
        for piece in self.pieces:
            sums[piece.means] = sums.get(piece.means, 0) + piece.length
        return sums

    @property
    def result_by_means(self) -> dict[Means, int]:
        """Bytes of the finished tree by how they are made: the explanation of ``download_size``."""
        sums: dict[Means, int] = {}
        for step in self.steps:
            for segment in step.segments:
                means, length = _made_by(segment)
                sums[means] = sums.get(means, 0) + length
        return sums


def plan_route(manifest: Manifest, inventory: Inventory) -> Plan:
    """Choose for every file the cheapest of copying, patching and chunks.

    The choice is greedy, not optimal: a frame of chunks serves several files, so their choices depend on each other.
    The steps are numbered in the body.
    """
    # 1. What is here whole is copied. What is not falls into regions that are made by a patch or from chunks.
    wanted = {file.digest: file for file in manifest.files if file.digest not in inventory.files and file.size}
    regions = [region for file in wanted.values() for region in _regions(manifest, file, inventory)]
    # 2. Frames that are needed whatever is chosen cost nothing more to those who could do without.
    _choose(manifest, regions)
    pieces = _pieces(manifest, regions)
    made: dict[Digest, list[_Region]] = {}
    for region in regions:
        made.setdefault(region.file.digest, []).append(region)
    steps = tuple(_step(manifest, file, made.get(file.digest, ()), inventory) for file in manifest.files)
    return Plan(manifest, steps, pieces, group_pieces(pieces))


def group_pieces(pieces: Collection[Piece]) -> tuple[Range, ...]:
    """Join pieces that lie close together in one object into requests."""
    ranges: list[Range] = []
    run: list[Piece] = []
    for piece in sorted(pieces, key=lambda p: (p.key, p.offset)):
        if run:
            end = run[-1].offset + run[-1].length
            close = piece.key == run[0].key and 0 <= piece.offset - end <= MAX_GAP
            if not close or piece.offset + piece.length - run[0].offset > MAX_RANGE:
                ranges.append(_range(run))
                run = []
        run.append(piece)
    if run:
        ranges.append(_range(run))
    return tuple(ranges)


def _range(run: Sequence[Piece]) -> Range:
    start = run[0].offset
    return Range(run[0].key, start, run[-1].offset + run[-1].length - start, tuple(run))


@dataclass(slots=True)
class _Region:
    """Consecutive chunks of a file: made by ``patch`` unless it is None, else from ``chunks``, of which some are here.

    ``frames`` are those that the chunks which are not here lie in.
    """

    file: File
    chunks: tuple[int, ...]
    frames: frozenset[int]
    patch: Patch | None


def _regions(manifest: Manifest, file: File, inventory: Inventory) -> list[_Region]:
    starts = [0]
    for number in file.chunks:
        starts.append(starts[-1] + manifest.chunks[number].size)
    index = {start: n for n, start in enumerate(starts)}
    regions = []
    first = 0
    for patch in _usable_patches(file, index, inventory):
        begin, end = index[patch.offset], index[patch.offset + patch.length]
        if first < begin:
            regions.append(_region(manifest, file, (first, begin), None, inventory))
        regions.append(_region(manifest, file, (begin, end), patch, inventory))
        first = end
    if first < len(file.chunks):
        regions.append(_region(manifest, file, (first, len(file.chunks)), None, inventory))
    return regions


def _region(
    manifest: Manifest,
    file: File,
    span: tuple[int, int],
    patch: Patch | None,
    inventory: Inventory,
) -> _Region:
    chunks = file.chunks[slice(*span)]
    missing = (manifest.chunks[n] for n in chunks if manifest.chunks[n].digest not in inventory.chunks)
    return _Region(file, chunks, frozenset(chunk.frame for chunk in missing), patch)


def _usable_patches(file: File, index: Mapping[int, int], inventory: Inventory) -> list[Patch]:
    """Give patches that this machine can apply and that do not overlap, the best first chosen, in the file's order."""
    usable = [
        patch
        for patch in file.patches
        if patch.codec in inventory.codecs
        # A patch that begins or ends inside a chunk could not be joined with chunks. Publishers make none.
        and patch.offset in index
        and patch.offset + patch.length in index
        and all(base.file in inventory.files for base in patch.base)
    ]
    usable.sort(key=lambda patch: (patch.size / patch.length, patch.offset))
    chosen: list[Patch] = []
    for patch in usable:
        at = bisect_right(chosen, patch.offset, key=lambda p: p.offset)
        clear_before = at == 0 or chosen[at - 1].offset + chosen[at - 1].length <= patch.offset
        clear_behind = at == len(chosen) or patch.offset + patch.length <= chosen[at].offset
        if clear_before and clear_behind:
            chosen.insert(at, patch)
    return chosen


def _choose(manifest: Manifest, regions: Sequence[_Region]) -> None:
    """Take the patch from every region that is cheaper without it."""
    fetched = {number for region in regions if region.patch is None for number in region.frames}
    undecided = [(region, region.patch.size) for region in regions if region.patch is not None]
    released = True
    while released:
        released = False
        # Regions that lack the same frames: together they pay for them once, or for all of their patches.
        groups: dict[frozenset[int], list[tuple[_Region, int]]] = {}
        for region, size in undecided:
            groups.setdefault(region.frames - fetched, []).append((region, size))
        undecided = []
        for lacking, group in groups.items():
            if _length(manifest, lacking - fetched) <= sum(size for _, size in group):
                released = True
                fetched |= lacking
                for region, _ in group:
                    region.patch = None
            else:
                undecided += group
    # Groups that share only some of their frames were not weighed against each other: at least weigh all at once.
    every = {number for region in regions for number in region.frames}
    if _length(manifest, every - fetched) <= sum(size for _, size in undecided):
        for region, _ in undecided:
            region.patch = None


def _length(manifest: Manifest, frames: Collection[int]) -> int:
    return sum(manifest.frames[number].length for number in frames)


def _pieces(manifest: Manifest, regions: Sequence[_Region]) -> tuple[Piece, ...]:
    frames = {number for region in regions if region.patch is None for number in region.frames}
    pieces = [frame_piece(manifest, number) for number in sorted(frames)]
    pieces += [patch_piece(manifest, region.patch) for region in regions if region.patch is not None]
    return tuple(dict.fromkeys(pieces))


def frame_piece(manifest: Manifest, number: int) -> Piece:
    """Give the piece to download for a frame."""
    frame = manifest.frames[number]
    return Piece(manifest.packs[frame.pack].key, frame.offset, frame.length, frame.digest, Means.CHUNKS)


def patch_piece(manifest: Manifest, patch: Patch) -> Piece:
    """Give the piece to download for a patch."""
    return Piece(manifest.packs[patch.pack].key, patch.at, patch.size, patch.digest, Means.PATCH)


def _step(manifest: Manifest, file: File, regions: Sequence[_Region], inventory: Inventory) -> Step:
    if not file.size:
        return Step(file, Means.COPY, ())
    if place := inventory.files.get(file.digest):
        return Step(file, Means.COPY, (FromOld(place, 0, file.size, file.digest),))
    segments: list[Segment] = []
    for region in regions:
        if region.patch is not None:
            segments.append(FromPatch(region.patch, tuple(inventory.files[base.file] for base in region.patch.base)))
        else:
            _append_chunks(segments, manifest, region.chunks, inventory)
    made_by = {_made_by(segment)[0] for segment in segments}
    return Step(file, max(made_by, key=list(Means).index), tuple(segments))


def _append_chunks(segments: list[Segment], manifest: Manifest, chunks: Sequence[int], inventory: Inventory) -> None:
    for number in chunks:
        chunk = manifest.chunks[number]
        if old := inventory.chunks.get(chunk.digest):
            segments.append(FromOld(old.place, old.offset, chunk.size, chunk.digest))
            continue
        last = segments[-1] if segments else None
        if isinstance(last, FromFrame) and (last.frame, last.offset + last.length) == (chunk.frame, chunk.offset):
            segments[-1] = FromFrame(last.frame, last.offset, last.length + chunk.size)
        else:
            segments.append(FromFrame(chunk.frame, chunk.offset, chunk.size))


def _made_by(segment: Segment) -> tuple[Means, int]:
    match segment:
        case FromOld():
            return Means.COPY, segment.length
        case FromPatch():
            return Means.PATCH, segment.patch.length
        case FromFrame():
            return Means.CHUNKS, segment.length


def _full_size(manifest: Manifest) -> int:
    frames = {manifest.chunks[number].frame for file in manifest.files for number in file.chunks}
    return sum(manifest.frames[number].length for number in frames)
