"""All the patches that a release could carry: from every base, for every file that is not there. Publisher's half."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Final, Self

from instar.content._budget import MemoryBudget
from instar.content._zstd import zstd
from instar.content.downloads import Downloads
from instar.content.layout import Content
from instar.content.patches import BaseFiles, Effort, encode_patch, memory_of_patch
from instar.content.rebuild import Source, make_tree
from instar.content.regions import MAX_RUN, SampledIndex
from instar.model.digest import Digest
from instar.model.manifest import Base, Codec, File, Manifest
from instar.model.names import TreePath
from instar.model.progress import OnProgress, Phase, Progress
from instar.storage.ports import Reader
from instar.system.files import create_file

__all__ = ["Draft", "PatchMaker", "even_parts", "part_of_old"]

WHOLE_FILE: Final = 64 << 20
"""Bytes up to which a file is patched from the same part of an old one. Larger ones are patched in regions."""

# Bytes that one patch makes at most: a file that is longer is patched in parts, each from about the same part of the
# old one and so much before and behind it. That bounds memory, and is quicker: a program of 55 MB took 30 s instead of
# 41, half the memory, and 0.4 % more bytes.
_MAX_OUTPUT: Final = 32 << 20
_MARGIN: Final = 4 << 20

# Bytes that the patches being made may hold in memory together.
_MEMORY: Final = 768 << 20

# A patch is worth keeping when it costs at most this part of what the chunks would, its row in the manifest included.
_WORTH: Final = 0.9
_ROW: Final = 60

# What a chunk costs is not known before the frames are made, and they are laid out by what has a patch. A quick
# compression tells it well enough; level 19 in large frames makes about this part of it.
_ESTIMATE_LEVEL: Final = 3
_ESTIMATE_FACTOR: Final = 0.8


@dataclass(frozen=True, slots=True)
class Draft:
    """A patch that was made and tried, not yet in a pack.

    It makes ``length`` bytes from ``offset`` of the file ``content`` from ``parts`` of a file of the base release
    number ``base``. Its ``size`` bytes lie at ``at`` in the maker's own file.
    """

    content: Digest
    base: int
    offset: int
    length: int
    parts: tuple[Base, ...]
    codec: Codec
    at: int
    size: int
    digest: Digest


@dataclass(frozen=True)
class _Old:
    """An old file that was read back from the repository."""

    file: File
    path: Path

    @cached_property
    def index(self) -> SampledIndex:
        return SampledIndex(self.path)


@dataclass(frozen=True)
class _Job:
    """One patch to be tried: for a whole file, or a region of one."""

    content: Content
    base: int
    old: File
    offset: int
    length: int
    missing: tuple[tuple[Digest, int], ...]
    missing_at: tuple[int, ...]
    part_of_old: tuple[int, int] | None

    @property
    def memory(self) -> int:
        """Bytes that trying it takes."""
        # A region's base is some four times as long as the region, see `windows_like`.
        base_length = self.part_of_old[1] if self.part_of_old else 5 * self.length
        return memory_of_patch(base_length, self.length)


class PatchMaker:
    """Makes patches and keeps them in a file of its own, since all of them may be more than memory holds.

    Args:
        root: the folder of the new release.
        work: a folder for that file and for the bases' content.
        effort: how hard to try.
        progress: told of the bytes of the files that patches are tried for.

    """

    def __init__(self, root: Path, work: Path, effort: Effort, progress: OnProgress) -> None:
        self._root = root
        self._work = work
        self._effort = effort
        self._progress = progress
        self._memory = MemoryBudget(_MEMORY)
        self._lock = threading.Lock()
        self._index_lock = threading.Lock()
        self._path = work / ".patches-made.tmp"
        self._spool = create_file(self._path)
        self._spooled = 0
        self._done = 0

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the file."""
        self._spool.close()
        self._path.unlink(missing_ok=True)

    def make(self, contents: Sequence[Content], bases: Sequence[Manifest], reader: Reader) -> list[Draft]:
        """Try all patches. Gives those worth keeping, the first base's first, then by path.

        Raises:
            Unavailable: the bases' content could not be read.
            Untrusted: it is not what their manifests say.
            OSError: the disk is full.

        """
        jobs = [job for number, base in enumerate(bases) for job in _jobs(contents, number, base)]
        # Releases have contents in common: what leads from one content to another is tried once.
        jobs = list({(job.old.digest, job.content.digest, job.offset): job for job in reversed(jobs)}.values())
        olds = self._read_bases(bases, jobs, reader)
        total = sum(job.length for job in jobs)
        # The longest first, so that no processor is left alone with it at the end.
        jobs.sort(key=lambda job: -job.length)
        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="instar-patch") as pool:
            try:
                made = list(pool.map(lambda job: self._try(job, olds[job.old.digest], total), jobs))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        path_of = {content.digest: content.path for content in contents}
        drafts = [draft for draft in made if draft is not None]
        return sorted(drafts, key=lambda draft: (draft.base, path_of[draft.content], draft.offset))

    def read(self, draft: Draft) -> bytes:
        """Give a patch that was made."""
        with self._lock:
            self._spool.seek(draft.at)
            return self._spool.read(draft.size)

    def _try(self, job: _Job, old: _Old, total: int) -> Draft | None:
        with self._memory.hold(job.memory):
            draft = self._make(job, old)
        with self._lock:
            self._done += job.length
            self._progress(Progress(Phase.PATCH, self._done, total))
        return draft

    def _make(self, job: _Job, old: _Old) -> Draft | None:
        with self._root.joinpath(job.content.path).open("rb", buffering=0) as file:
            file.seek(job.offset)
            new = file.read(job.length)
        absent = b"".join(new[at : at + size] for at, (_, size) in zip(job.missing_at, job.missing, strict=True))
        chunks = _ESTIMATE_FACTOR * len(zstd.compress(absent, level=_ESTIMATE_LEVEL))
        del absent
        if not _is_worth(0, chunks):
            return None
        if job.part_of_old:
            spans = [job.part_of_old]
        else:
            with self._index_lock:
                index = old.index
            spans = index.windows_like(new)
        if not spans:
            return None
        base = _read_spans(old.path, spans)
        encoded = encode_patch(base, new, self._effort)
        if encoded is None or not _is_worth(len(encoded.data), chunks):
            return None
        parts = tuple(Base(job.old.digest, offset, length) for offset, length in spans)
        with self._lock:
            at = self._spooled
            self._spool.seek(at)
            self._spool.write(encoded.data)
            self._spooled += len(encoded.data)
        return Draft(
            content=job.content.digest,
            base=job.base,
            offset=job.offset,
            length=job.length,
            parts=parts,
            codec=encoded.codec,
            at=at,
            size=len(encoded.data),
            digest=Digest.of(encoded.data),
        )

    def _read_bases(self, bases: Sequence[Manifest], jobs: Sequence[_Job], reader: Reader) -> Mapping[Digest, _Old]:
        """Rebuild the old files that are needed from the repository, as a device would."""
        olds: dict[Digest, _Old] = {}
        sources: list[Source] = []
        downloads = Downloads(self._work / ".bases" / "downloads")
        for number, base in enumerate(bases):
            wanted = {job.old.digest: job.old for job in jobs if job.base == number and job.old.digest not in olds}
            partial = replace(base, files=tuple(wanted.values()), links=(), directories=())
            folder = self._work / ".bases" / str(number)
            make_tree(partial, sources, downloads, folder, reader=reader)
            sources.append(Source(folder, partial))
            olds |= {digest: _Old(file, folder / file.path) for digest, file in wanted.items()}
        downloads.clear()
        return olds


def _jobs(contents: Sequence[Content], number: int, base: Manifest) -> Iterator[_Job]:
    index = BaseFiles(base.files)
    files = {file.digest for file in base.files}
    chunks = {chunk.digest for chunk in base.chunks}
    for content in contents:
        if content.digest in files:
            continue
        size = sum(size for _, size in content.chunks)
        old = index.choose(TreePath(content.path), size)
        if old is None:
            continue
        by_part = max(size, old.size) <= WHOLE_FILE
        spans = even_parts(content, size) if by_part else list(_missing_runs(content, chunks))
        starts = [0]
        for _, chunk_size in content.chunks:
            starts.append(starts[-1] + chunk_size)
        for first, end in spans:
            missing = [n for n in range(first, end) if content.chunks[n][0] not in chunks]
            if missing:
                yield _Job(
                    content,
                    number,
                    old,
                    starts[first],
                    starts[end] - starts[first],
                    tuple(content.chunks[n] for n in missing),
                    tuple(starts[n] - starts[first] for n in missing),
                    part_of_old(old.size, (starts[first], starts[end]), size) if by_part else None,
                )


def even_parts(content: Content, size: int) -> list[tuple[int, int]]:
    """Split a content's chunks into parts of about the same length, none much longer than ``_MAX_OUTPUT``."""
    count = -(-size // _MAX_OUTPUT)
    ends: list[int] = []
    done = 0
    for number, (_, chunk_size) in enumerate(content.chunks):
        done += chunk_size
        if done * count >= size * (len(ends) + 1):
            ends.append(number + 1)
    return list(pairwise([0, *ends]))


def part_of_old(old_size: int, span: tuple[int, int], size: int) -> tuple[int, int]:
    """Give the part of an old file, (offset, length), that a part of a new one of ``size`` bytes probably came from."""
    if span == (0, size):
        return 0, old_size
    start = max(0, span[0] * old_size // size - _MARGIN)
    end = min(old_size, span[1] * old_size // size + _MARGIN)
    return start, end - start


def _missing_runs(content: Content, present: set[Digest]) -> Iterator[tuple[int, int]]:
    """Give runs of consecutive chunks that the base has not: (first, behind the last)."""
    first: int | None = None
    length = 0
    for number, (digest, size) in enumerate(content.chunks):
        if first is not None and (digest in present or length + size > MAX_RUN):
            yield first, number
            first = None
        if digest not in present:
            if first is None:
                first, length = number, 0
            length += size
    if first is not None:
        yield first, len(content.chunks)


def _read_spans(path: Path, spans: Sequence[tuple[int, int]]) -> bytes:
    parts = []
    with path.open("rb", buffering=0) as file:
        for offset, length in spans:
            file.seek(offset)
            parts.append(file.read(length))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _is_worth(size: int, chunks: float) -> bool:
    """Tell whether a patch of ``size`` bytes is worth keeping where the chunks would cost ``chunks`` bytes."""
    return size + _ROW <= _WORTH * chunks
