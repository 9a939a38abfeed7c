"""What was fetched so far, kept on disk so that a broken download goes on at the byte where it stopped.

The store is a folder of *runs*: a run ``<object>-<first byte>-<n>.part`` holds consecutive bytes of one object of the
storage from that byte on, and only ever grows at its end. So what is here can be seen from names and lengths, no list
has to be kept in step with it, and the next plan finds what an earlier one got, even if it asks otherwise. Nothing in
the folder is believed: every piece is hashed before it is used. Therefore nothing is synced to the disk either; what a
power cut takes is fetched again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import re
import stat
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from instar.errors import Cancelled, InstallFailed, Unavailable, Untrusted
from instar.model.digest import Digest
from instar.model.progress import OnProgress, Phase, Progress, ignore_progress
from instar.policy.route import Piece, Plan, Range, group_pieces
from instar.storage.ports import Reader
from instar.system.files import COPY_BLOCK, create_file, remove_tree

__all__ = ["CONNECTIONS", "Downloads", "disk_failure", "never_cancelled"]

CONNECTIONS: Final = 4
"""Requests under way at once."""

_RUN: Final = re.compile(r"([0-9a-f]{64}\.pack)-([0-9]{1,20})-[0-9]{1,9}\.part")


def never_cancelled() -> bool:
    """Go on: the default where nobody can ask to stop."""
    return False


@contextlib.contextmanager
def disk_failure(what: str) -> Iterator[None]:
    """Turn the operating system's errors into a sentence for a person: ``what`` could not be done, and why."""
    try:
        yield
    except OSError as error:
        hint = {
            errno.ENOSPC: "Free some space and try again; nothing is lost.",
            errno.EDQUOT: "Free some space and try again; nothing is lost.",
            errno.EROFS: "The disk is read-only; nothing was changed.",
        }.get(error.errno or 0, "Nothing was changed.")
        msg = f"{what} failed: {error.strerror or error}."
        raise InstallFailed(msg, hint=hint) from error


@dataclass(frozen=True, slots=True)
class _Run:
    """A file of the store: ``length`` bytes of an object from ``start`` on."""

    path: Path
    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


class Downloads:
    """Pieces of packs in a folder. Which plan asked for them does not matter: a new plan finds what an older one got.

    Args:
        folder: created at need; the caller sees to it that one process at a time works in it.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Where each piece lies that was found whole in this folder and verified.
        self._found: dict[Piece, tuple[Path, int]] = {}
        self._lock = threading.Lock()

    def missing(self, plan: Plan) -> int:
        """Count the bytes of the plan that are not here yet.

        Raises:
            InstallFailed: the folder cannot be read.

        """
        with disk_failure("Reading the downloads"):
            self._find(plan.pieces)
            runs = self._runs()
        size = 0
        for part in group_pieces([piece for piece in plan.pieces if piece not in self._found]):
            run = _run_into(runs.get(_name(part.key), []), part.pieces[0])
            size += part.length - (run.end - part.offset if run else 0)
        return size

    def fetch(
        self,
        plan: Plan,
        reader: Reader,
        *,
        progress: OnProgress = ignore_progress,
        cancelled: Callable[[], bool] = never_cancelled,
    ) -> None:
        """Fetch what the plan needs and is not here, several ranges at once, and verify every piece.

        A piece that comes wrong is dropped and fetched afresh once from each of the reader's alternatives.

        Raises:
            Untrusted: a piece came wrong again.
            Unavailable: the storage did not deliver. What came is kept.
            Cancelled: ``cancelled()`` became true. What came is kept.
            InstallFailed: this disk could not take it, or it is full. What came is kept.

        """
        missing = self.missing(plan)
        with disk_failure("Keeping the download"):
            self._folder.mkdir(parents=True, exist_ok=True)
            runs = self._runs()
        job = _Job(reader, progress, cancelled, plan.download_size, plan.download_size - missing)
        job.report(0)
        with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="instar-fetch") as pool:
            try:
                futures = []
                for part in group_pieces([piece for piece in plan.pieces if piece not in self._found]):
                    run = _run_into(runs.get(_name(part.key), []), part.pieces[0])
                    futures.append(pool.submit(self._fetch_range, part, run, job))
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                # One failed, or the caller was interrupted: the others stop at their next block.
                if not all(future.done() and future.exception() is None for future in futures):
                    job.stop.set()
        failures = [error for future in futures if (error := future.exception()) is not None]
        # Those that were only stopped say less than the one that made them stop.
        for failure in sorted(failures, key=lambda error: isinstance(error, _Stopped)):
            raise failure
        job.finish()

    def read(self, piece: Piece) -> bytes:
        """Give a piece that was fetched, verified once more.

        Raises:
            InstallFailed: it is not here, or was damaged on this disk since; it is dropped, so fetching heals it.

        """
        with self.open(piece) as file:
            data = file.read(piece.length)
        if Digest.of(data) != piece.digest:
            self._drop(piece)
            msg = "A downloaded piece was damaged on this disk."
            raise InstallFailed(msg, hint="Try again: only that piece is fetched afresh.")
        return data

    @contextlib.contextmanager
    def open(self, piece: Piece) -> Iterator[IO[bytes]]:
        """Give an open file, placed at the first byte of a piece that was fetched. What it holds is not verified.

        Raises:
            InstallFailed: it is not here.

        """
        with disk_failure("Reading the downloads"):
            self._find([piece])
            if piece not in self._found:
                msg = "A piece of the release was not downloaded."
                raise InstallFailed(msg, hint="Try again.")
            path, offset = self._found[piece]
            file = path.open("rb", buffering=0)
        with file:
            file.seek(offset)
            yield file

    def clear(self) -> None:
        """Remove everything: the release is installed, or no longer wanted.

        Raises:
            InstallFailed: it could not be removed.

        """
        self._found.clear()
        with disk_failure("Removing the downloads"):
            remove_tree(self._folder)

    def _drop(self, piece: Piece) -> None:
        """Forget the run that a damaged piece lies in, from that piece on."""
        path, offset = self._found.pop(piece)
        for other, (its_path, its_offset) in list(self._found.items()):
            if its_path == path and its_offset >= offset:
                del self._found[other]
        with disk_failure("Repairing the downloads"):
            _truncate(path, offset)

    def _runs(self) -> dict[str, list[_Run]]:
        """Give the runs on disk by object, each list sorted by where they start."""
        runs: dict[str, list[_Run]] = {}
        with contextlib.suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                # What is a link or a pipe by now is passed over: it would lead elsewhere, or keep us waiting.
                if (match := _RUN.fullmatch(path.name)) and stat.S_ISREG((status := path.lstat()).st_mode):
                    run = _Run(path, int(match[2]), status.st_size)
                    runs.setdefault(match[1], []).append(run)
        for of_object in runs.values():
            of_object.sort(key=lambda run: run.start)
        return runs

    def _find(self, pieces: Iterable[Piece]) -> None:
        """Look for pieces that are whole on disk, and hash them."""
        unknown = [piece for piece in pieces if piece not in self._found]
        if not unknown:
            return
        runs = self._runs()
        for piece in unknown:
            # Runs of one object may overlap when plans differed; the damaged one does not hide the good one.
            for run in runs.get(_name(piece.key), []):
                if run.start <= piece.offset and piece.offset + piece.length <= run.end:
                    offset = piece.offset - run.start
                    if _digest_of(run.path, offset, piece.length) == piece.digest:
                        with self._lock:
                            self._found[piece] = (run.path, offset)
                        break

    def _fetch_range(self, part: Range, run: _Run | None, job: _Job) -> None:
        """Fetch a range into one run; ``run`` is one that holds its beginning already."""
        job.check()
        with disk_failure("Keeping the download"):
            run = run or self._new_run(part)
        # A wrong piece is fetched afresh from everywhere it could come from; from the only source, once more.
        sources = [job.reader, *job.reader.alternatives()]
        left = list(part.pieces)
        tries = 0
        while True:
            try:
                good = self._receive(run, left, job, sources[tries])
            except (Unavailable, Untrusted) as error:
                # The reader has asked all it knows. One source alone may well fail while the next has what is right.
                if isinstance(error, Cancelled) or tries in {0, len(sources) - 1}:
                    raise
                good = 0
            del left[:good]
            if not left:
                return
            with disk_failure("Repairing the download"):
                length = left[0].offset - run.start
                job.report(length - run.path.lstat().st_size)
                _truncate(run.path, length)
                run = _Run(run.path, run.start, length)
            tries = 1 if good else tries + 1
            if tries == len(sources):
                msg = f"{left[0].key} is not what was signed."
                raise Untrusted(msg, hint="Nothing was changed; try another server, or tell the publisher.")

    def _new_run(self, part: Range) -> _Run:
        """Create a run. One with the same start can be there, damaged at its beginning and good behind."""
        for number in itertools.count():
            path = self._folder / f"{_name(part.key)}-{part.offset}-{number}.part"
            with contextlib.suppress(FileExistsError):
                create_file(path).close()
                return _Run(path, part.offset, 0)
        raise AssertionError

    def _receive(self, run: _Run, pieces: Sequence[Piece], job: _Job, reader: Reader) -> int:
        """Append to a run until all ``pieces`` are there. Gives the number of those that came right, in order."""
        check = _PieceCheck(pieces)
        at, end = run.end, pieces[-1].offset + pieces[-1].length
        with contextlib.ExitStack() as stack:
            with disk_failure("Keeping the download"):
                file = stack.enter_context(run.path.open("r+b", buffering=0))
                file.seek(min(pieces[0].offset, run.end) - run.start)
                while file.tell() < run.length:
                    check.take(run.start + file.tell(), file.read(COPY_BLOCK))
            for block in stack.enter_context(reader.stream(pieces[0].key, start=at, length=end - at)):
                with disk_failure("Keeping the download"):
                    _write_all(file, block)
                check.take(at, block)
                at += len(block)
                job.report(len(block))
                if check.wrong:
                    break
                job.check()
        with self._lock:
            self._found |= {piece: (run.path, piece.offset - run.start) for piece in pieces[: check.good]}
        return check.good


class _PieceCheck:
    """Hashes pieces of one object as their bytes come by, in order; bytes between pieces are passed over."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces
        self._hash = hashlib.sha256()
        self.good = 0
        self.wrong = False

    def take(self, at: int, block: bytes) -> None:
        """Take the bytes of the object from ``at`` on."""
        view = memoryview(block)
        while self.good < len(self._pieces) and not self.wrong:
            piece = self._pieces[self.good]
            end = piece.offset + piece.length
            self._hash.update(view[max(0, piece.offset - at) : max(0, end - at)])
            if at + len(view) < end:
                return
            self.wrong = self._hash.digest() != piece.digest.raw
            if not self.wrong:
                self.good += 1
                self._hash = hashlib.sha256()


class _Stopped(Cancelled):
    """Another range failed; this one gave up for its sake."""


class _Job:
    """What the threads of one download share."""

    def __init__(
        self,
        reader: Reader,
        progress: OnProgress,
        cancelled: Callable[[], bool],
        total: int,
        done: int,
    ) -> None:
        self.reader = reader
        self.stop = threading.Event()
        self._progress = progress
        self._cancelled = cancelled
        self._total = total
        self._done = done
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raise when the work should not go on."""
        if self.stop.is_set():
            msg = "The download stopped."
            raise _Stopped(msg)
        if self._cancelled():
            msg = "The download was cancelled."
            raise Cancelled(msg, hint="What was fetched so far is kept.")

    def report(self, count: int) -> None:
        """Tell of ``count`` bytes more (or less, when some were dropped)."""
        with self._lock:
            self._done += count
            self._progress(Progress(Phase.DOWNLOAD, max(0, min(self._done, self._total)), self._total))

    def finish(self) -> None:
        """Tell that everything is here."""
        self._progress(Progress(Phase.DOWNLOAD, self._total, self._total))


def _name(key: str) -> str:
    return key.rpartition("/")[2]


def _run_into(runs: Sequence[_Run], piece: Piece) -> _Run | None:
    """Give the run that ends inside ``piece``, so that it can be continued there."""
    at = bisect_right(runs, piece.offset, key=lambda run: run.start)
    usable = [run for run in runs[:at] if piece.offset < run.end < piece.offset + piece.length]
    return max(usable, key=lambda run: run.end, default=None)


def _digest_of(path: Path, offset: int, length: int) -> Digest:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        while length > 0 and (block := file.read(min(length, COPY_BLOCK))):
            digest.update(block)
            length -= len(block)
    return Digest(digest.digest())


def _truncate(path: Path, length: int) -> None:
    with path.open("r+b") as file:
        file.truncate(length)


def _write_all(file: IO[bytes], block: bytes) -> None:
    view = memoryview(block)
    while view:
        view = view[file.write(view) :]
