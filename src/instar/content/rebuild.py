"""A release's tree from pieces: downloads, and the content of trees that are here already.

Nothing on the disk is believed. A file that is copied or made by a patch is hashed as it is written, and is what was
signed or is not used; so nothing more is asked of its base (only when the result is wrong, to find out whose fault it
is). A chunk that is taken out of an old file is hashed before. Making the tree durable and switching to it is the
business of ``instar.install``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from instar.content._budget import MemoryBudget
from instar.content.codecs import apply_patch, available_codecs, expand_frame
from instar.content.downloads import Downloads, disk_failure, never_cancelled
from instar.errors import Cancelled, InstallFailed, Untrusted
from instar.model.digest import Digest
from instar.model.manifest import Base, Manifest
from instar.model.progress import OnProgress, Phase, Progress, ignore_progress
from instar.policy.route import (
    FromFrame,
    FromOld,
    FromPatch,
    Inventory,
    Place,
    Plan,
    Segment,
    Step,
    frame_piece,
    patch_piece,
    plan_route,
)
from instar.storage.ports import Reader
from instar.system.files import COPY_BLOCK, create_file, iterate_blocks, remove_tree

__all__ = ["BaseChanged", "Source", "make_tree", "rebuild", "take_inventory"]

# Files made at once: hashing, decompressing and patching release Python's lock.
_THREADS: Final = 4

# Bytes that the files under way may hold in memory together. One that needs more is made alone.
_MEMORY: Final = 128 << 20

# Decompressed frames kept for the next file that needs them; files are made in the order of their frames.
_FRAMES_KEPT: Final = 4


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
    excluded = set(without)
    for number, source in enumerate(sources):
        for file in source.manifest.files:
            with contextlib.suppress(OSError):
                if source.root.joinpath(file.path).lstat().st_size == file.size:
                    continue
            excluded.add(Place(number, file.path))
    return Inventory.of([source.manifest for source in sources], codecs=available_codecs(), without=excluded)


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
    work = _Work(plan, roots, downloads, destination, _Watch(progress, cancelled, plan.manifest.size))
    with disk_failure("Writing the new release"):
        work.make_folders()
        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), thread_name_prefix="instar-rebuild") as pool:
            try:
                futures = [pool.submit(work.make_files, batch) for batch in _batches(sorted(plan.steps, key=_order))]
                for future in futures:
                    future.result()
            except BaseException:
                work.watch.stop.set()
                pool.shutdown(cancel_futures=True)
                raise
        if work.changed:
            raise BaseChanged(frozenset(work.changed))
        work.make_links()


def make_tree(  # the subject and its surroundings; all but the first four have names
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
    without: frozenset[Place] = frozenset()
    roots = [source.root for source in sources]
    while True:
        plan = plan_route(manifest, take_inventory(sources, without=without))
        downloads.fetch(plan, reader, progress=progress, cancelled=cancelled)
        try:
            rebuild(plan, roots, downloads, destination, progress=progress, cancelled=cancelled)
        except BaseChanged as changed:
            # Every round has fewer files to build on, so this ends.
            without |= changed.places
            with disk_failure("Starting over"):
                remove_tree(destination)
        else:
            return plan


def _order(step: Step) -> tuple[int, int, int]:
    """Order the work: large patches first, so that no thread is left alone with one; chunks in the frames' order."""
    first = next((s for s in step.segments if isinstance(s, FromFrame)), None)
    if first is None:
        return (0, -step.file.size, 0)
    return (1, first.frame, first.offset)


def _batches(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Put small files together: handing work to a thread costs about as much as making one."""
    batch: list[Step] = []
    for step in steps:
        batch.append(step)
        if sum(step.file.size for step in batch) >= COPY_BLOCK:
            yield batch
            batch = []
    if batch:
        yield batch


class _Watch:
    """Progress, and the wish to stop, for all threads."""

    def __init__(self, progress: OnProgress, cancelled: Callable[[], bool], total: int) -> None:
        self.stop = threading.Event()
        self._progress = progress
        self._cancelled = cancelled
        self._total = total
        self._done = 0
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raise when the work should not go on."""
        if self.stop.is_set() or self._cancelled():
            msg = "Making the new release was cancelled."
            raise Cancelled(msg, hint="What was fetched so far is kept.")

    def report(self, count: int) -> None:
        """Tell of ``count`` more bytes of the finished tree."""
        with self._lock:
            self._done += count
            self._progress(Progress(Phase.REBUILD, self._done, self._total))


class _Work:
    """One rebuild under way."""

    def __init__(
        self,
        plan: Plan,
        roots: Sequence[Path],
        downloads: Downloads,
        destination: Path,
        watch: _Watch,
    ) -> None:
        self.watch = watch
        self.changed: set[Place] = set()
        self._plan = plan
        self._roots = roots
        self._downloads = downloads
        self._destination = destination
        self._memory = MemoryBudget(_MEMORY)
        self._frames = _Frames(plan.manifest, downloads)

    def make_folders(self) -> None:
        manifest = self._plan.manifest
        self._destination.mkdir(parents=True, exist_ok=True)
        if any(self._destination.iterdir()):
            msg = "The folder for the new release is not empty."
            raise InstallFailed(msg, hint="Nothing was changed; try again.")
        paths = [*(file.path for file in manifest.files), *(link.path for link in manifest.links)]
        folders = {parent for path in (*paths, *manifest.directories) for parent in path.parents}
        for folder in sorted(folders | set(manifest.directories)):
            self._destination.joinpath(folder).mkdir()

    def make_links(self) -> None:
        for link in self._plan.manifest.links:
            self._destination.joinpath(link.path).symlink_to(link.target)

    def make_files(self, steps: Sequence[Step]) -> None:
        """Make files; what they build on that turns out to be changed is noted in ``changed``."""
        for step in steps:
            self._make_file(step)

    def _make_file(self, step: Step) -> None:
        self.watch.check()
        target = self._destination.joinpath(step.file.path)
        with self._memory.hold(_need(step)):
            try:
                with create_file(target, mode=0o755 if step.file.executable else 0o644) as file:
                    self._write(step, file)
            except BaseChanged as changed:
                # Go on with the other files, so that all that changed is known at once.
                self.changed |= changed.places

    def _write(self, step: Step, file: IO[bytes]) -> None:
        digest = hashlib.sha256()
        try:
            for segment in step.segments:
                for block in self._content(step, segment):
                    digest.update(block)
                    file.write(block)
                    self.watch.report(len(block))
                    self.watch.check()
        except Untrusted:
            self._blame_bases(step)
            raise
        if digest.digest() != step.file.digest.raw:
            self._blame_bases(step)
            msg = f"{step.file.path} does not come out as it was signed."
            raise Untrusted(msg, hint="Nothing was changed; tell the publisher.")

    def _blame_bases(self, step: Step) -> None:
        """Raise ``BaseChanged`` if the old files that ``step`` builds on are not what they should be."""
        expected: dict[Place, Digest] = {}
        for segment in step.segments:
            if isinstance(segment, FromPatch):
                expected |= {place: base.file for base, place in zip(segment.patch.base, segment.bases, strict=True)}
            elif isinstance(segment, FromOld) and len(step.segments) == 1:
                expected[segment.place] = segment.digest
        changed = {place for place, digest in expected.items() if self._digest_of_old(place) != digest}
        if changed:
            raise BaseChanged(frozenset(changed))

    def _digest_of_old(self, place: Place) -> Digest:
        digest = hashlib.sha256()
        with self._open_old(place) as file:
            for block in iterate_blocks(file):
                digest.update(block)
                self.watch.check()
        return Digest(digest.digest())

    def _content(self, step: Step, segment: Segment) -> Iterator[bytes | memoryview]:
        match segment:
            case FromFrame():
                content = memoryview(self._frames.read(segment.frame))
                yield content[segment.offset : segment.offset + segment.length]
            case FromPatch():
                yield self._patched(segment)
            case FromOld() if len(step.segments) == 1:
                yield from self._old_file(segment)
            case FromOld():
                yield self._old_chunk(segment)

    def _old_file(self, segment: FromOld) -> Iterator[bytes]:
        """Give a whole old file in blocks. Its digest is that of the new file, so it is verified with that."""
        left = segment.length
        with self._open_old(segment.place) as file:
            while left > 0:
                block = file.read(min(left, COPY_BLOCK))
                if not block:
                    raise BaseChanged(frozenset({segment.place}))
                left -= len(block)
                yield block

    def _old_chunk(self, segment: FromOld) -> bytes:
        with self._open_old(segment.place) as file:
            file.seek(segment.offset)
            data = _read_exactly(file, segment.length)
        if Digest.of(data) != segment.digest:
            raise BaseChanged(frozenset({segment.place}))
        return data

    def _patched(self, segment: FromPatch) -> bytes:
        patch = segment.patch
        base = b"".join(
            [self._base(part, place) for part, place in zip(patch.base, segment.bases, strict=True)],
        )
        data = self._downloads.read(patch_piece(self._plan.manifest, patch))
        return apply_patch(patch.codec, base, data, patch.length)

    def _base(self, part: Base, place: Place) -> bytes:
        with self._open_old(place) as file:
            file.seek(part.offset)
            data = _read_exactly(file, part.length)
        if len(data) != part.length:
            raise BaseChanged(frozenset({place}))
        return data

    @contextlib.contextmanager
    def _open_old(self, place: Place) -> Iterator[IO[bytes]]:
        """Open an old file for reading. If that fails, it is one more that changed."""
        path = self._roots[place.source].joinpath(place.path)
        # Not blocking on what is no file any more, and not led elsewhere by what has become a link.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            with os.fdopen(os.open(path, flags), "rb", buffering=0) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise BaseChanged(frozenset({place}))
                yield file
        except OSError as error:
            raise BaseChanged(frozenset({place})) from error


class _Frames:
    """Decompressed frames: each is made by the thread that needs it first, and a few are kept."""

    def __init__(self, manifest: Manifest, downloads: Downloads) -> None:
        self._manifest = manifest
        self._downloads = downloads
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, Future[bytes]] = OrderedDict()

    def read(self, number: int) -> bytes:
        with self._lock:
            future = self._kept.get(number)
            mine = future is None
            if future is None:
                future = self._kept[number] = Future()
                while len(self._kept) > _FRAMES_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(number)
        if mine:
            try:
                data = self._downloads.read(frame_piece(self._manifest, number))
                future.set_result(expand_frame(data, self._manifest.frames[number].size))
            except BaseException as error:
                future.set_exception(error)
                raise
        return future.result()


def _read_exactly(file: IO[bytes], length: int) -> bytes:
    """Read ``length`` bytes, or fewer if the file ends before."""
    data = file.read(length)
    if len(data) < length:
        # One call reads at most 2 GiB, and may read less.
        parts = [data]
        left = length - len(data)
        while left and (data := file.read(left)):
            parts.append(data)
            left -= len(data)
        return b"".join(parts)
    return data


def _need(step: Step) -> int:
    """Estimate the bytes of memory that making a file takes at once.

    A patch has its base there, itself (compressed and not), and its result, which HDiffPatch hands over as a copy.
    """
    patches = (s.patch for s in step.segments if isinstance(s, FromPatch))
    return max((2 * p.length + sum(b.length for b in p.base) + 3 * p.size for p in patches), default=COPY_BLOCK)
