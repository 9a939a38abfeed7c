"""A folder into a release: a manifest, and the packs that its pieces lie in. Publisher's half.

Needs the ``publish`` extra. Signing and uploading are done elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from instar.content.chunking import cut_file
from instar.content.downloads import disk_failure
from instar.content.drafts import Draft, PatchMaker
from instar.content.layout import Content, FramePlan, Group, Known, known_chunks, plan_frames, worn_out
from instar.content.packs import PackFile, PackWriter, compress_frame
from instar.content.patches import Effort
from instar.content.scan import Tree, scan_folder
from instar.errors import Misconfigured
from instar.model.digest import Digest
from instar.model.manifest import Chunk, File, Frame, Manifest, Pack, Patch
from instar.model.names import Name, ProductName
from instar.model.progress import OnProgress, Phase, Progress, ignore_progress
from instar.model.version import Version
from instar.storage.ports import Reader
from instar.system.files import remove_tree

__all__ = ["Built", "Effort", "Label", "PackFile", "Statistics", "build_release"]

# Zstandard levels of the frames of chunks.
_LEVELS: Final = {Effort.FAST: 12, Effort.BEST: 19}
# The level of frames whose content most devices make by patch: only first installs and very old ones fetch them.
# Measured on 48 MB of libraries: a tenth of the time of level 19 for 9.6 % more bytes, and nothing between is worth it.
_PATCHED_LEVEL: Final = 12

# Programs by their first bytes, whatever they are called: alike content side by side is compressed better.
_MAGICS: Final = {b"\x7fELF": "elf", b"MZ": "pe", b"\xcf\xfa\xed\xfe": "macho"}


@dataclass(frozen=True, slots=True)
class Label:
    """What the release is called and said to be."""

    product: ProductName
    version: Version
    platform: Name
    notes: str = ""
    meta: Mapping[str, str] = field(default_factory=dict)


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
    with disk_failure("Making the release"):
        work.mkdir(parents=True, exist_ok=True)
        tree = scan_folder(folder, platform=label.platform, progress=progress)
        contents = _cut(tree, [*bases, *earlier])
        known = known_chunks([*bases, *earlier])
        pieces = _Pieces(known, worn_out(contents, known))
        with PatchMaker(tree.root, work, effort, progress) as maker:
            drafts = maker.make(contents, bases, reader)
            remove_tree(work / ".bases")
            with PackWriter(work, "chunks") as writer:
                pieces.write_chunks(writer, contents, drafts, tree.root, _LEVELS[effort], progress)
            with PackWriter(work, "patches") as writer:
                pieces.write_patches(writer, drafts, maker)
    manifest = pieces.manifest(label, tree, contents)
    statistics = Statistics(
        tree=manifest.size,
        new=pieces.new,
        chunk_pack=sum(file.size for file in pieces.files[:1] if pieces.new),
        patch_pack=sum(file.size for file in pieces.files[-1:] if drafts),
        patches=len(drafts),
    )
    return Built(manifest, tuple(pieces.files), statistics)


def _cut(tree: Tree, manifests: Sequence[Manifest]) -> list[Content]:
    """Cut every distinct content into chunks; what an earlier release holds whole is cut as there."""
    cut: dict[Digest, tuple[tuple[Digest, int], ...]] = {}
    for manifest in manifests:
        chunks = [(chunk.digest, chunk.size) for chunk in manifest.chunks]
        for old in manifest.files:
            cut.setdefault(old.digest, tuple(chunks[number] for number in old.chunks))
    files = {file.digest: file for file in tree.files if file.size}
    contents = []
    for file in files.values():
        path = tree.root.joinpath(file.path)
        chunks_of_file = cut.get(file.digest)
        if chunks_of_file is None:
            chunks_of_file = tuple((chunk.digest, chunk.size) for chunk in cut_file(path, file.digest))
        contents.append(Content(file.digest, file.path, _kind(path), chunks_of_file))
    return contents


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    magic = next((kind for magic, kind in _MAGICS.items() if start.startswith(magic)), None)
    return magic or path.suffix


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where a chunk lies: in ``frame`` (its number of a pack means nothing here) of ``pack``, from ``offset``."""

    pack: Pack
    frame: Frame
    offset: int


class _Pieces:
    """Where all pieces of the release lie, as the packs are written.

    Args:
        known: the chunks that earlier releases keep.
        again: those of them that are stored once more.

    """

    def __init__(self, known: Mapping[Digest, Known], again: set[Digest]) -> None:
        self._spots = {
            digest: _Spot(k.manifest.packs[k.frame.pack], k.frame, k.offset)
            for digest, k in known.items()
            if digest not in again
        }
        self._again = again
        self._patches: dict[Digest, list[tuple[Pack, Patch]]] = {}
        self.files: list[PackFile] = []
        self.new = 0

    def write_chunks(
        self,
        writer: PackWriter,
        contents: Sequence[Content],
        drafts: Sequence[Draft],
        root: Path,
        level: int,
        progress: OnProgress,
    ) -> None:
        """Compress what is not known into frames, and put them into a pack."""
        frames = plan_frames(
            contents,
            elsewhere=self._spots.keys(),
            again=self._again,
            patched={draft.content for draft in drafts if draft.base == 0},
        )
        if not frames:
            return
        self.new = sum(content.chunks[number][1] for frame in frames for content, number in frame.chunks)
        written: list[Frame] = []
        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="instar-compress") as pool:
            try:
                done = 0
                for size, data in pool.map(lambda frame: _compress(frame, root, level), frames):
                    written.append(Frame(0, writer.add(data), len(data), size, Digest.of(data)))
                    done += size
                    progress(Progress(Phase.COMPRESS, done, self.new))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        pack, file = writer.finish()
        self.files.append(file)
        for frame, plan in zip(written, frames, strict=True):
            offset = 0
            for content, number in plan.chunks:
                digest, size = content.chunks[number]
                self._spots[digest] = _Spot(pack, frame, offset)
                offset += size

    def write_patches(self, writer: PackWriter, drafts: Sequence[Draft], maker: PatchMaker) -> None:
        """Put patches into a pack of their own."""
        if not drafts:
            return
        places = [writer.add_patch(maker.read(draft)) for draft in drafts]
        pack, file = writer.finish()
        self.files.append(file)
        for draft, at in zip(drafts, places, strict=True):
            patch = Patch(draft.offset, draft.length, draft.parts, draft.codec, 0, at, draft.size, draft.digest)
            self._patches.setdefault(draft.content, []).append((pack, patch))

    def manifest(self, label: Label, tree: Tree, contents: Sequence[Content]) -> Manifest:
        """Write down the release."""
        tables = _Tables(self._spots)
        chunks_of = {content.digest: content.chunks for content in contents}
        # Numbered in the order of the files, so that most files are one run of numbers.
        numbers = {
            file.digest: tuple(tables.chunk(digest, size) for digest, size in chunks_of.get(file.digest, ()))
            for file in tree.files
        }
        return Manifest(
            product=label.product,
            version=label.version,
            platform=label.platform,
            files=tuple(
                File(
                    file.path,
                    file.size,
                    file.digest,
                    file.executable,
                    numbers[file.digest],
                    tuple(replace(patch, pack=tables.pack(pack)) for pack, patch in self._patches.get(file.digest, ())),
                )
                for file in tree.files
            ),
            links=tree.links,
            directories=tree.directories,
            chunks=tuple(tables.chunks),
            frames=tuple(tables.frames),
            packs=tuple(tables.packs),
            notes=label.notes,
            meta=dict(label.meta),
        )


class _Tables:
    """The tables of a manifest, filled as their rows are first asked for."""

    def __init__(self, spots: Mapping[Digest, _Spot]) -> None:
        self._spots = spots
        self._chunk_numbers: dict[Digest, int] = {}
        self._frame_numbers: dict[Digest, int] = {}
        self._pack_numbers: dict[Pack, int] = {}
        self.chunks: list[Chunk] = []
        self.frames: list[Frame] = []
        self.packs: list[Pack] = []

    def chunk(self, digest: Digest, size: int) -> int:
        """Give the number of a chunk."""
        number = self._chunk_numbers.get(digest)
        if number is None:
            number = self._chunk_numbers[digest] = len(self.chunks)
            spot = self._spots[digest]
            self.chunks.append(Chunk(digest, size, self.frame(spot), spot.offset))
        return number

    def frame(self, spot: _Spot) -> int:
        """Give the number of the frame that a spot is in."""
        number = self._frame_numbers.get(spot.frame.digest)
        if number is None:
            number = self._frame_numbers[spot.frame.digest] = len(self.frames)
            self.frames.append(replace(spot.frame, pack=self.pack(spot.pack)))
        return number

    def pack(self, pack: Pack) -> int:
        """Give the number of a pack."""
        if pack not in self._pack_numbers:
            self._pack_numbers[pack] = len(self.packs)
            self.packs.append(pack)
        return self._pack_numbers[pack]


def _compress(plan: FramePlan, root: Path, level: int) -> tuple[int, bytes]:
    """Read the chunks of a frame, check that they are what was hashed before, and compress them together."""
    parts = []
    # Chunks of one file follow each other, so each file is opened once.
    for content, numbers in _by_content(plan.chunks):
        starts = [0]
        for _, size in content.chunks:
            starts.append(starts[-1] + size)
        with root.joinpath(content.path).open("rb", buffering=0) as file:
            for number in numbers:
                digest, size = content.chunks[number]
                file.seek(starts[number])
                part = file.read(size)
                if Digest.of(part) != digest:
                    msg = f"{content.path} changed while the release was made."
                    raise Misconfigured(msg, hint="Release a folder that nothing writes to.")
                parts.append(part)
    data = b"".join(parts)
    parts.clear()
    # Time goes where bytes go.
    return len(data), compress_frame(data, level if plan.group is Group.NO_PATCH else min(level, _PATCHED_LEVEL))


def _by_content(entries: Sequence[tuple[Content, int]]) -> list[tuple[Content, list[int]]]:
    groups: list[tuple[Content, list[int]]] = []
    for content, number in entries:
        if groups and groups[-1][0] is content:
            groups[-1][1].append(number)
        else:
            groups.append((content, [number]))
    return groups
