"""A storage in a local folder. What is written is durable when the call returns; what is read is read where it lies."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import secrets
import stat
import sys
from collections.abc import Generator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from instar.errors import Busy, Conflict
from instar.storage.keys import Key
from instar.storage.ports import READ_BLOCK, Listed, Stat, Storage, shorter, translated
from instar.system import files, locks

__all__ = ["LocalStorage"]

# Their names begin with a dot, so no key can name them: they are never listed, read or served.
_INCOMING: Final = ".incoming"
_PUBLISHER_LOCK: Final = ".publisher.lock"
_REPLACE_LOCK: Final = ".replace.lock"
# Objects up to this many bytes are tagged by their content. Only small ones are ever replaced under a condition, and
# hashing a pack for every request would cost more than sending it.
_HASHED: Final = 4 * 1024 * 1024
# What link() says where the file system has no hard links (FAT, some network shares, Android).
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})


class LocalStorage(Storage):
    """Objects as files below ``root``, a key being the path. The folder comes into being with the first object.

    Files are written in ``root/.incoming`` and moved to their place, so all of ``root`` must be one file system.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def _path(self, key: Key) -> Path:
        path = self.root / key
        # Somebody may have put a link there. Where it leads is not part of the storage, and must not be served.
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise FileNotFoundError(errno.ENOENT, "it is a link that leads out of the storage", str(path))
        return path

    def _blocks(self, key: Key, start: int, length: int | None) -> Generator[bytes]:
        with self._open(key) as file:
            size = os.fstat(file.fileno()).st_size
            if start > size:
                raise shorter(key, start - size)
            file.seek(start)
            left = size - start if length is None else length
            while left > 0 and (block := file.read(min(left, READ_BLOCK))):
                left -= len(block)
                yield block

    def _open(self, key: Key) -> io.FileIO:
        path = self._path(key)
        if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would wait for ever
            raise FileNotFoundError(errno.ENOENT, "it is not a file", str(path))
        return path.open("rb", buffering=0)

    def _stat(self, key: Key) -> Stat:
        with self._open(key) as file:
            status = os.fstat(file.fileno())
            if status.st_size > _HASHED:
                tag = f"{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ino:x}"
            else:
                tag = hashlib.file_digest(file, "sha256").hexdigest()
        return Stat(status.st_size, tag)

    def _list(self, prefix: str) -> Iterator[Listed]:
        top = self.root / prefix.rpartition("/")[0]
        for folder, folders, names in os.walk(top, onerror=_raise_unless_missing):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                path = Path(folder, name)
                try:
                    key = Key(path.relative_to(self.root).as_posix())
                    status = path.lstat()
                except (ValueError, FileNotFoundError):
                    continue  # not ours, or removed while we looked
                if key.startswith(prefix) and stat.S_ISREG(status.st_mode):
                    yield Listed(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def _write(self, key: Key, source: bytes | Path) -> None:
        with self._incoming(source) as temporary:
            files.move(temporary, self._place(key))

    def _delete(self, key: Key) -> None:
        path = self.root / key
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return
        files.sync_folder(path.parent)

    def _create(self, key: Key, source: bytes | Path) -> None:
        path = self._place(key)
        if not path.exists():
            with contextlib.suppress(FileExistsError), self._incoming(source) as temporary:
                self._put_new(temporary, path)
                files.sync_folder(path.parent)
                return
        if not _same_content(path, source):
            msg = f"The storage already holds another {key}."
            raise Conflict(msg)
        # Also when it was there before: whoever put it there may have died before its name was on the disk.
        files.sync_folder(path.parent)

    def _put_new(self, temporary: Path, path: Path) -> None:
        """Move a file to a name that nobody has; two writers at once cannot both succeed."""
        if sys.platform == "win32":
            temporary.rename(path)  # refuses to replace, there
        else:
            try:
                os.link(temporary, path)
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                with self._replacing(path.name):
                    if path.exists():
                        raise FileExistsError(errno.EEXIST, "exists", str(path)) from error
                    temporary.rename(path)

    def _replace(self, key: Key, data: bytes, expected: str | None) -> None:
        with self._replacing(key):
            try:
                found = self._stat(key).etag
            except (FileNotFoundError, NotADirectoryError):
                found = None
            if found != expected:
                msg = f"Somebody else changed {key} in the meantime."
                raise Conflict(msg, hint="Try again: it will start from what is there now.")
            self._write(key, data)

    @contextlib.contextmanager
    def _replacing(self, what: str) -> Iterator[None]:
        # Another lock than the publisher's, which whoever replaces usually holds already.
        files.make_folder(self.root)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locks.exclusive(self.root / _REPLACE_LOCK, what="this storage"))
            except Busy as error:
                msg = f"Somebody else is changing {what} right now."
                raise Conflict(msg, hint="Try again when they are done.") from error
            yield

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other publishers out, in this process and in others on this machine.

        Raises:
            Busy: another one is at work.
            Misconfigured: the folder cannot be written.
            Unavailable: the folder cannot be used for another reason.

        """
        with contextlib.ExitStack() as stack:
            with translated("The storage's lock", writing=True):
                files.make_folder(self.root)
                stack.enter_context(locks.exclusive(self.root / _PUBLISHER_LOCK, what="this repository"))
            yield

    def remove_leftovers(self) -> int:
        """Remove the temporary files of writers that were killed. Only for the one who holds the storage."""
        removed = 0
        with translated("A leftover", writing=True):
            for path in self.root.glob(f"{_INCOMING}/*"):
                files.remove_tree(path)
                removed += 1
        return removed

    def _place(self, key: Key) -> Path:
        path = self.root / key
        files.make_folder(path.parent)
        return self._path(key)

    @contextlib.contextmanager
    def _incoming(self, source: bytes | Path) -> Iterator[Path]:
        """Write a durable file of that content beside the objects; whatever is left of it at the end is removed."""
        folder = self.root / _INCOMING
        files.make_folder(folder)
        temporary = folder / secrets.token_hex(8)
        try:
            if isinstance(source, Path):
                files.clone_file(source, temporary, mode=0o644)
                with temporary.open("r+b") as file:
                    files.sync_file(file)
            else:
                with files.create_file(temporary) as file:
                    file.write(source)
                    files.sync_file(file)
            yield temporary
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()


def _raise_unless_missing(error: OSError) -> None:
    # Left to itself, os.walk passes over a folder that it may not read, and a full storage looks empty.
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error


def _same_content(path: Path, source: bytes | Path) -> bool:
    with path.open("rb") as file:
        if isinstance(source, bytes):
            return os.fstat(file.fileno()).st_size == len(source) and file.read(len(source) + 1) == source
        if os.fstat(file.fileno()).st_size != source.stat().st_size:
            return False
        with source.open("rb") as other:
            return all(block == other.read(len(block)) for block in files.iterate_blocks(file))
