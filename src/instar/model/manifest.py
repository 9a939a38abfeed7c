"""The manifest: the signed list of a release's files, with the pieces each can be made from.

Here are its values, its invariants and its JSON. Compressing it, fetching it and deciding who signed it are not done
here. ``docs/formats.md`` describes the JSON for people who write another client.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

from instar.model._json import numbers, text
from instar.model.digest import Digest
from instar.model.names import Name, ProductName, TreePath, check_link_target, collision_key, windows_problem
from instar.model.version import Version

__all__ = [
    "FORMAT",
    "MAX_CHUNK",
    "MAX_CHUNKS_USED",
    "MAX_FRAME",
    "MAX_JSON",
    "MAX_META",
    "MAX_NOTES",
    "MAX_PATCH_BASE",
    "MAX_PATCH_OUTPUT",
    "Base",
    "Chunk",
    "Codec",
    "File",
    "Frame",
    "Link",
    "Manifest",
    "Pack",
    "Patch",
    "piece_key",
]

FORMAT: Final = "instar-manifest-1"

# Bounds in bytes on what a manifest may ask a device to hold in memory. A publisher stays far below; a device refuses
# more, so that a hostile or broken manifest cannot exhaust it.
MAX_JSON: Final = 256 << 20  # a 100 GB image in 32 KiB chunks needs about this much
MAX_CHUNK: Final = 16 << 20
# Of all files together. A run of a few bytes can name any number, of a file that claims any size; 256 GB have as many.
MAX_CHUNKS_USED: Final = 8 << 20
MAX_FRAME: Final = 64 << 20
MAX_PATCH_BASE: Final = 256 << 20
MAX_PATCH_OUTPUT: Final = 256 << 20
# Notes are shown in a dialogue, metadata in a list.
MAX_NOTES: Final = 1 << 20
MAX_META: Final = 64 << 10
# More would hide the first ones from whoever reads the message.
_PROBLEMS_NAMED: Final = 10


def piece_key(digest: Digest, suffix: str) -> str:
    """Give the key in a storage of something named by its content: ``packs/ab/<digest>.<suffix>``."""
    return f"packs/{digest.hex[:2]}/{digest.hex}.{suffix}"


class Codec(StrEnum):
    """How a patch is encoded. A device that lacks a codec plans without those patches."""

    ZSTD_PREFIX = "zstd-prefix"
    """One Zstandard frame made with the base as raw prefix."""
    HDIFF = "hdiff-zstd"
    """An HDiffPatch difference without compression of its own, as one Zstandard frame."""


@dataclass(frozen=True, slots=True)
class Pack:
    """A file in ``packs/``: its content's digest and its length in bytes."""

    digest: Digest
    size: int

    @property
    def key(self) -> str:
        """Where it lies in a storage."""
        return piece_key(self.digest, "pack")


@dataclass(frozen=True, slots=True)
class Frame:
    """One Zstandard frame: ``length`` bytes at ``offset`` of pack number ``pack``; ``size`` bytes when decompressed.

    ``digest`` is that of the frame's own ``length`` bytes: nothing unverified is ever given to a decompressor.
    """

    pack: int
    offset: int
    length: int
    size: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class Chunk:
    """``size`` bytes of content: found at ``offset`` in the decompressed frame number ``frame``."""

    digest: Digest
    size: int
    frame: int
    offset: int


@dataclass(frozen=True, slots=True)
class Base:
    """``length`` bytes at ``offset`` of any file, of whatever release, whose whole content has the digest ``file``."""

    file: Digest
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Patch:
    """Makes ``length`` bytes at ``offset`` of the file it belongs to from ``base``, its parts joined in order.

    The encoded patch is ``size`` bytes at ``at`` of pack number ``pack``; ``digest`` is theirs.
    """

    offset: int
    length: int
    base: tuple[Base, ...]
    codec: Codec
    pack: int
    at: int
    size: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class File:
    """A regular file. ``chunks`` are numbers of the manifest's chunks, in order."""

    path: TreePath
    size: int
    digest: Digest
    executable: bool
    chunks: tuple[int, ...]
    patches: tuple[Patch, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link that stays inside the release."""

    path: TreePath
    target: str


@dataclass(frozen=True)
class Manifest:
    """One version of a product for one platform: every file, link and empty folder, and where their pieces are.

    Raises:
        ValueError: the parts contradict each other, or the paths could not live together on the platform's disks.
            Every problem found is named, up to ten.

    """

    product: ProductName
    version: Version
    platform: Name
    files: tuple[File, ...]
    links: tuple[Link, ...] = ()
    directories: tuple[TreePath, ...] = ()
    chunks: tuple[Chunk, ...] = ()
    frames: tuple[Frame, ...] = ()
    packs: tuple[Pack, ...] = ()
    notes: str = ""
    meta: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = [*self._tree_problems(), *self._piece_problems()]
        if problems:
            unnamed = len(problems) - _PROBLEMS_NAMED
            more = f" (and {unnamed} more)" if unnamed > 0 else ""
            raise ValueError("; ".join(problems[:_PROBLEMS_NAMED]) + more)

    def _tree_problems(self) -> list[str]:
        problems = []
        leaves: dict[str, str] = {f.path: "file" for f in self.files}
        leaves.update((link.path, "link") for link in self.links)
        entries = [*(f.path for f in self.files), *(link.path for link in self.links), *self.directories]
        spelling: dict[str, str] = {}
        seen: set[str] = set()
        for path in entries:
            if path in seen:
                problems.append(f"{path!s} stands in the release twice")
            seen.add(path)
            for name in (*path.parents, path):
                other = spelling.setdefault(collision_key(name), name)
                if other != name:
                    problems.append(f"{other!s} and {name!s} are one name on a case-insensitive disk")
                if name != path and name in leaves:
                    problems.append(f"{path!s} lies inside the {leaves[name]} {name!s}")
        for link in self.links:
            try:
                check_link_target(link.path, link.target)
            except ValueError as error:
                problems.append(str(error))
        if self.platform.startswith("windows"):
            problems += [f"{path!s}: {why}" for path in entries if (why := windows_problem(path))]
            problems += [f"{link.path!s}: Windows users may not create symbolic links" for link in self.links]
        return problems

    def _piece_problems(self) -> list[str]:
        problems = []
        for number, frame in enumerate(self.frames):
            inside = 0 <= frame.pack < len(self.packs) and frame.offset + frame.length <= self.packs[frame.pack].size
            if not inside or not 0 < frame.size <= MAX_FRAME or frame.length <= 0 or frame.offset < 0:
                problems.append(f"frame {number} does not lie in its pack")
        for number, chunk in enumerate(self.chunks):
            inside = 0 <= chunk.frame < len(self.frames) and chunk.offset + chunk.size <= self.frames[chunk.frame].size
            if not inside or not 0 < chunk.size <= MAX_CHUNK or chunk.offset < 0:
                problems.append(f"chunk {number} does not lie in its frame")
        for file in self.files:
            if any(not 0 <= number < len(self.chunks) for number in file.chunks):
                problems.append(f"{file.path!s} names chunks that do not exist")
            elif sum(self.chunks[number].size for number in file.chunks) != file.size:
                problems.append(f"the chunks of {file.path!s} do not add up to its size")
            problems.extend(
                f"a patch of {file.path!s} is out of bounds"
                for patch in file.patches
                if not self._patch_is_sound(patch, file.size)
            )
        if sum(len(file.chunks) for file in self.files) > MAX_CHUNKS_USED:
            problems.append(f"the files name more than {MAX_CHUNKS_USED} chunks")
        if len(self.notes.encode()) > MAX_NOTES:
            problems.append(f"the notes are longer than {MAX_NOTES} bytes")
        if sum(len(k.encode()) + len(v.encode()) for k, v in self.meta.items()) > MAX_META:
            problems.append(f"the metadata is longer than {MAX_META} bytes")
        return problems

    def _patch_is_sound(self, patch: Patch, file_size: int) -> bool:
        return (
            patch.offset >= 0
            and 0 < patch.length <= MAX_PATCH_OUTPUT
            and patch.offset + patch.length <= file_size
            and bool(patch.base)
            and all(base.offset >= 0 and base.length > 0 for base in patch.base)
            and sum(base.length for base in patch.base) <= MAX_PATCH_BASE
            and 0 <= patch.pack < len(self.packs)
            and patch.at >= 0
            and patch.size > 0
            and patch.at + patch.size <= self.packs[patch.pack].size
        )

    @property
    def size(self) -> int:
        """Bytes of all files together, as installed."""
        return sum(file.size for file in self.files)

    @cached_property
    def tree_digest(self) -> Digest:
        """What is installed, whatever it was made from: paths, contents, executable bits, links, empty folders."""
        rows = [["f", f.path, f.digest.hex, f.executable] for f in self.files]
        rows += [["l", link.path, link.target] for link in self.links]
        rows += [["d", path] for path in self.directories]
        rows.sort(key=lambda row: (row[1], row[0]))
        return Digest(hashlib.sha256(json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()).digest())

    def to_json(self) -> bytes:
        """Write the manifest, compact and with sorted keys: equal manifests give equal bytes."""
        document: dict[str, Any] = {
            "format": FORMAT,
            "product": self.product,
            "version": str(self.version),
            "platform": self.platform,
            "files": _files_to_json(self.files),
            "chunks": _chunks_to_json(self.chunks),
            "frames": [[f.digest.hex, f.pack, f.offset, f.length, f.size] for f in self.frames],
            "packs": [[p.digest.hex, p.size] for p in self.packs],
        }
        if self.links:
            document["links"] = [[link.path, link.target] for link in self.links]
        if self.directories:
            document["directories"] = list(self.directories)
        if self.notes:
            document["notes"] = self.notes
        if self.meta:
            document["meta"] = dict(self.meta)
        return json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Read a manifest and check all of it.

        Raises:
            ValueError: it is no manifest, of another format, or its parts contradict each other.

        """
        try:
            document = json.loads(data)
            if document.get("format") != FORMAT:
                msg = f"the manifest's format is {str(document.get('format'))[:40]!r}, this version reads {FORMAT!r}"
                raise ValueError(msg)
            return cls(
                product=ProductName(text(document["product"])),
                version=Version(text(document["version"])),
                platform=Name(text(document["platform"])),
                files=tuple(_files_from_json(document["files"])),
                links=tuple(Link(TreePath(text(p)), text(t)) for p, t in document.get("links", [])),
                directories=tuple(TreePath(text(p)) for p in document.get("directories", [])),
                chunks=tuple(_chunks_from_json(document["chunks"])),
                frames=tuple(_frame_from_json(row) for row in document["frames"]),
                packs=tuple(Pack(Digest.parse(text(h)), *numbers(n, 1)) for h, *n in document["packs"]),
                notes=text(document.get("notes", "")),
                meta={text(k): text(v) for k, v in document.get("meta", {}).items()},
            )
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            msg = f"the manifest is malformed: {error}"
            raise ValueError(msg) from error


# Rows say only what the row before does not: so the rows of what did not change are the same in the next release's
# manifest, whatever came before them, and the difference between two manifests is short.


_SHORT_CHUNK: Final = 2  # entries in the row of a chunk that says nothing of where it is


def _chunks_to_json(chunks: Sequence[Chunk]) -> list[list[Any]]:
    """Write a chunk that lies right behind the one before, in the same frame, as digest and size alone."""
    rows: list[list[Any]] = []
    behind: tuple[int, int] | None = None
    for chunk in chunks:
        row = [chunk.digest.hex, chunk.size]
        rows.append(row if (chunk.frame, chunk.offset) == behind else [*row, chunk.frame, chunk.offset])
        behind = (chunk.frame, chunk.offset + chunk.size)
    return rows


def _chunks_from_json(rows: Sequence[Sequence[Any]]) -> Iterator[Chunk]:
    frame = offset = -1
    for row in rows:
        if len(row) != _SHORT_CHUNK:
            size, frame, offset = numbers(row[1:], 3)
        elif frame < 0:
            msg = "the first chunk does not say where it is"
            raise ValueError(msg)
        else:
            (size,) = numbers(row[1:], 1)
        yield Chunk(Digest.parse(text(row[0])), size, frame, offset)
        offset += size


def _files_to_json(files: Sequence[File]) -> list[dict[str, Any]]:
    rows = []
    behind = 0
    for file in files:
        row: dict[str, Any] = {"path": file.path, "size": file.size, "sha256": file.digest.hex}
        if file.executable:
            row["executable"] = True
        if file.chunks:
            row["chunks"], behind = _runs(file.chunks, behind)
        if file.patches:
            row["patches"] = [_patch_to_json(patch) for patch in file.patches]
        rows.append(row)
    return rows


def _files_from_json(rows: Sequence[Mapping[str, Any]]) -> Iterator[File]:
    behind = used = 0
    for row in rows:
        executable = row.get("executable", False)
        if not isinstance(executable, bool):
            msg = "'executable' is true or false"
            raise TypeError(msg)
        size = numbers([row["size"]], 1)[0]
        chunks: list[int] = []
        for run in row.get("chunks", []):
            first, count = numbers(run, 2) if isinstance(run, list) else (behind, *numbers([run], 1))
            used += count
            if first < 0 or count < 1 or used > MAX_CHUNKS_USED:
                msg = "a run of chunks is out of bounds"
                raise ValueError(msg)
            behind = first + count
            chunks.extend(range(first, behind))
        yield File(
            path=TreePath(text(row["path"])),
            size=size,
            digest=Digest.parse(text(row["sha256"])),
            executable=executable,
            chunks=tuple(chunks),
            patches=tuple(_patch_from_json(patch) for patch in row.get("patches", [])),
        )


def _runs(chunks: Sequence[int], behind: int) -> tuple[list[int | list[int]], int]:
    """Write 3, 4, 5, 9 as [[3, 3], [9, 1]]: first and count; only the count where the first is ``behind``.

    Gives with it the number behind the last.
    """
    runs: list[int | list[int]] = []
    first = count = 0
    for number in [*chunks, -1]:
        if count and number == first + count:
            count += 1
            continue
        if count:
            runs.append(count if first == behind else [first, count])
            behind = first + count
        first, count = number, 1
    return runs, behind


def _patch_to_json(patch: Patch) -> dict[str, Any]:
    return {
        "offset": patch.offset,
        "length": patch.length,
        "base": [[base.file.hex, base.offset, base.length] for base in patch.base],
        "codec": patch.codec.value,
        "where": [patch.pack, patch.at, patch.size],
        "sha256": patch.digest.hex,
    }


def _frame_from_json(row: Sequence[Any]) -> Frame:
    pack, offset, length, size = numbers(row[1:], 4)
    return Frame(pack, offset, length, size, Digest.parse(text(row[0])))


def _patch_from_json(row: Mapping[str, Any]) -> Patch:
    offset, length = numbers([row["offset"], row["length"]], 2)
    pack, at, size = numbers(row["where"], 3)
    return Patch(
        offset,
        length,
        tuple(Base(Digest.parse(text(h)), *numbers(n, 2)) for h, *n in row["base"]),
        Codec(row["codec"]),
        pack,
        at,
        size,
        Digest.parse(text(row["sha256"])),
    )
